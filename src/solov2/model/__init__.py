"""The network and its parts; they take plain numbers and know no configuration."""
