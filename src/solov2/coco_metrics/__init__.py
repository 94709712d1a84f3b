"""How good masks are: COCO ground truth and COCO result records to mask AP, or to matches counted over all pictures."""

from solov2.coco_metrics.average_precision import MaskAP, ap_of, mask_ap
from solov2.coco_metrics.bootstrap import Bootstrap, bootstrap_ap
from solov2.coco_metrics.boundary import boundary_overlaps
from solov2.coco_metrics.calibration import Calibration, calibrate
from solov2.coco_metrics.curves import save_curves
from solov2.coco_metrics.matching import Matching, best_threshold, matching_of, pooled_matching
from solov2.coco_metrics.records import read_ground_truth
from solov2.coco_metrics.reliability import Reliability, reliability_by_class, save_reliability
from solov2.coco_metrics.tally import Tally, mask_overlaps
from solov2.score_curve import calibrated

__all__ = [
    "Bootstrap",
    "Calibration",
    "MaskAP",
    "Matching",
    "Reliability",
    "Tally",
    "ap_of",
    "best_threshold",
    "bootstrap_ap",
    "boundary_overlaps",
    "calibrate",
    "calibrated",
    "mask_ap",
    "mask_overlaps",
    "matching_of",
    "pooled_matching",
    "read_ground_truth",
    "reliability_by_class",
    "save_curves",
    "save_reliability",
]
