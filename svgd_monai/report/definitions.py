"""What the words and numbers of a report mean, for its readers."""

DEFINITIONS = (
    "A method is named by its runs' setting method, or else by committee/acquisition; /delete stands behind where "
    "labelled cases leave the pool (keep_labelled: false). Its runs differ in their seed alone, and runs of different "
    "methods at one seed are a pair.",
    "Unique labels are the cases that somebody had to label; a case that is drawn again costs none. A curve takes the "
    "last value where a count repeats, and is a straight line between two counts.",
    "Area under the budget curve (aubc): the trapezoid of the test Dice over unique labels, divided by the range; so a "
    "mean Dice. The summary takes the range that all methods share, a pair the range that its runs share.",
    "The primary test is the paired t test of two methods' areas, two-sided, at 5 %. With n seeds the two-sided "
    "Wilcoxon signed-rank test cannot fall below 2 to the power 1 − n (0.0625 with 5 seeds), so it stands beside it. "
    "Holm's step-down correction (1979) holds the chance of any false alarm among all pairs below 5 %. A difference "
    "that is not significant may still be there: its interval says how large.",
    "Power: with a true mean difference and normal differences between seeds of this spread, t follows a noncentral t "
    "distribution; the chance that it lies beyond the critical value. The spread is estimated from the same few seeds: "
    "a plan for further seeds, not a finding.",
    "The pairwise penalty matrix (Ash et al. 2020, arXiv 1906.03671): of the label counts at which all runs of two "
    "methods were measured, the share at which one is better than the other by a paired t test at 5 %, uncorrected.",
    "Full-data runs are those whose setting method is full, or whose first round leaves no case unlabelled. Labels to "
    "reach a share of their mean final test Dice: of the counts at which one of a method's seeds was measured, the "
    "least from which on the seed-mean curve stays at or above it, both at the seeds that both have (where they have "
    "none in common, at all of each). Intervals: percentile bootstrap over seeds, 10,000 "
    "draws. With few seeds they are too narrow (3 seeds give 10 different draws): a guide, not a test.",
    "ECE: mean over voxels of the gap between confidence and accuracy in ten bins of the predicted class's probability "
    "(Naeini et al. 2015), on the working grid, the voxels of all test cases together; background is most of them. "
    "Correlation: Spearman's, over the test cases, of a case's uncertainty with 1 − its mean Dice.",
)
