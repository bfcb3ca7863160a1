"""What the words and numbers of a report mean, for its readers."""

DEFINITIONS = (
    "Method: a group of runs that differ in their seed alone. Its name is the runs' setting `method`, or else "
    "committee/acquisition, followed by /delete if labelled cases leave the pool (keep_labelled: false). Two runs of "
    "different methods with the same seed form a pair.",
    "Unique labels: the cases that somebody had to label. A labelled case that is drawn again adds none. If several "
    "rounds have the same count, the curve takes the last of them; between two counts it is a straight line.",
    "Area under the budget curve (aubc): the test Dice integrated over unique labels by the trapezoidal rule and "
    "divided by the range of labels, so that it is a mean Dice. The summary integrates over the range that all methods "
    "share, a comparison of two methods over the range that their runs share.",
    "Tests: the primary test is the two-sided paired t test of two methods' areas, at 5 %. The two-sided Wilcoxon "
    "signed-rank test is given only beside it, because with n seeds its p cannot fall below 2 to the power 1 − n "
    "(0.0625 with 5 seeds). Holm's step-down correction (1979) keeps the chance of any false alarm among all pairs "
    "below 5 %. A difference that is not significant may still exist: its interval shows how large it may be.",
    "Power: the chance that the paired t test finds a given true mean difference, if the differences between seeds are "
    "normal with the estimated spread (t then follows a noncentral t distribution). The spread comes from the same few "
    "seeds, so this helps to plan further seeds and is not a finding.",
    "Penalty (Ash et al. 2020, arXiv 1906.03671): the share of label counts at which one method is better than another "
    "by a paired t test at 5 %, uncorrected, among the counts at which all runs of both were measured.",
    "Full-data runs: those whose setting `method` is full, or whose first round leaves no case unlabelled. A method is "
    "measured by those that are trained as it is (steps, batch, learning rate, network, loss, volumes); of several, by "
    "the method called full, or else by the one with the most seeds. Labels to reach a share of their mean final test "
    "Dice: the least label count from which on the method's seed-mean curve stays at or above it, among the counts at "
    "which one of its seeds was measured. Both means are over the seeds that the method and the full data share; if "
    "they share none, over all seeds of each. The intervals come from a percentile bootstrap with 10,000 draws of "
    "seeds, each with its run of the method and its run on the full data; where they share none, of either by itself. "
    "With few seeds they are too narrow (3 seeds give 10 different draws): a guide, not a test.",
    "ECE (expected calibration error, Naeini et al. 2015): the gap between confidence and accuracy in ten bins of the "
    "predicted class's probability, averaged over the voxels of all test cases together, on the working grid. Most of "
    "these voxels are background. Correlation: Spearman's, over the test cases, between a case's uncertainty and "
    "1 − its mean Dice.",
)
