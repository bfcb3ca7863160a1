"""What segresnet.yaml adds to a bundle beside a network of MONAI's: a likelihood, a strategy, a hook."""

import torch

from svgd_monai.acquisition import strategy


class CategoricalLoss(torch.nn.Module):
    """Minus the log-likelihood of the labels, each voxel a draw from the softmax; mean over voxels."""

    def forward(self, logits, label):
        """(B, C, X, Y, Z) logits and (B, 1, X, Y, Z) classes to a number."""
        return torch.nn.functional.cross_entropy(logits.float(), label[:, 0].long())


@strategy(uncertainty_map="bald")
def small_and_disputed(view, options, query):
    """The members' disagreement per predicted ml: a score for each case of the pool, the highest are asked for."""
    return view.uncertainty / (view.foreground + 1.0)


class Notes:
    """A line for each round in notes.txt."""

    def after_round(self, run, number):
        """Write all lines: after a crash, a round's hooks may be called once more."""
        lines = [f"{row['unique_labels']} labels: test Dice {row['test_dice']}\n" for row in run.curve]
        (run.folder.root / "notes.txt").write_text("".join(lines), encoding="utf-8")
