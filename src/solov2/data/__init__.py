"""From a COCO json and a folder of pictures to batches; a picture's masks stay shapes until the end."""
