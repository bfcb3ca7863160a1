"""Members on batches of their own: a control for ensembles."""

import pytest
import torch
from monai.engines.utils import IterationEvents
from test_trainer import LOSS, batches, make_trainer

from svgd_monai.committee import PosteriorStep
from svgd_monai.errors import SettingsError

MEMBERS = 3


def stacked(steps):
    """Batches that hold one of two items for each member, and each member's own."""
    whole = batches(MEMBERS * steps)
    own = [whole[member::MEMBERS] for member in range(MEMBERS)]
    joint = [
        {key: torch.cat([own[member][step][key] for member in range(MEMBERS)]) for key in ("image", "label")}
        for step in range(steps)
    ]
    return joint, own


def test_each_member_of_an_ensemble_trains_as_if_alone_on_its_own_batches():
    joint, own = stacked(4)
    trainer = make_trainer(MEMBERS, joint, step=PosteriorStep("ensemble", prior_std=1.0), member_batches="own")
    start = trainer.network.values.detach().clone()
    trainer.run()
    for member in range(MEMBERS):
        alone = make_trainer(1, own[member], step=PosteriorStep("ensemble", prior_std=1.0))
        with torch.no_grad():
            alone.network.values.copy_(start[member : member + 1])
        alone.run()
        torch.testing.assert_close(trainer.network.values[member], alone.network.values[0], rtol=0, atol=0)


def test_the_output_holds_each_members_prediction_for_its_own_batch():
    joint, _ = stacked(1)
    trainer = make_trainer(MEMBERS, joint, member_batches="own")
    seen = {}

    def look(engine):
        network, inputs = engine.network, engine.state.output["image"]
        with torch.no_grad():
            parts = [network.member(i, inputs[2 * i : 2 * i + 2]).softmax(1) for i in range(MEMBERS)]
            losses = [
                LOSS(network.member(i, inputs[2 * i : 2 * i + 2]), engine.state.output["label"][2 * i : 2 * i + 2])
                for i in range(MEMBERS)
            ]
        seen["pred"], seen["losses"] = torch.cat(parts), torch.stack(losses)
        seen["found"] = engine.state.output["pred"].clone(), engine.state.member_losses.clone()

    trainer.add_event_handler(IterationEvents.BACKWARD_COMPLETED, look)
    trainer.run()
    torch.testing.assert_close(seen["found"][0], seen["pred"])
    torch.testing.assert_close(seen["found"][1], seen["losses"])


@pytest.mark.parametrize("items", [2, 8])
def test_a_batch_that_cannot_be_dealt_out_evenly_is_refused(items):
    batch = {key: torch.cat([each[key] for each in batches(4)])[:items] for key in ("image", "label")}
    with pytest.raises(SettingsError, match=rf"^member_batches: own needs .* of 3 members, got {items} items"):
        make_trainer(MEMBERS, [batch], member_batches="own").run()


def test_an_unknown_word_is_refused():
    with pytest.raises(SettingsError, match="member_batches: 'mine' is not one of shared, own"):
        make_trainer(member_batches="mine")
