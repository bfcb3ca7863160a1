"""What tests of the committee share."""

import pytest

from svgd_monai.committee.guard import ParticleGuard


@pytest.fixture
def late_flags(monkeypatch):
    """The guard reads its flags as on a GPU: not within the step that notes them."""
    note = ParticleGuard.note

    def leave(self, *arguments):
        with monkeypatch.context() as patch:
            patch.setattr(ParticleGuard, "settle", lambda *_: None)
            note(self, *arguments)

    monkeypatch.setattr(ParticleGuard, "note", leave)
