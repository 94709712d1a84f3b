"""How good masks are: COCO ground truth and COCO result records to mask AP, or to matches counted over all pictures."""

from solov2.coco_metrics.average_precision import Backend, MaskAP, mask_ap
from solov2.coco_metrics.curves import save_curves
from solov2.coco_metrics.matching import Matching, pooled_matching

__all__ = ["Backend", "MaskAP", "Matching", "mask_ap", "pooled_matching", "save_curves"]
