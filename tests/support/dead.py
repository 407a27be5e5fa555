"""Dead latents without the steps of training in which they would be found."""

from saelight.saes import SAE
from saelight.saes.dead_latents import TeachesDead


def teach_dead(sae: SAE) -> None:
    """Have those that are dead now taught from now on, by a variant that teaches any."""
    if isinstance(sae, TeachesDead):
        sae.look_for_dying(0)
        sae.use_dying()
