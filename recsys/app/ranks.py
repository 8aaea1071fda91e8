"""What a command does when another process of the same training is gone."""

import os
import time


def wait_for_last_words(error: Exception) -> int | None:
    """Return the exit code if `error` says no more than that another rank is gone, else None.

    Before that the rank that failed has time to report, and the agent to end this one.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None
    from recsys.training.engine.ranks import LAST_WORDS_SECONDS, LOST_PEER, peer_is_lost

    if not peer_is_lost(error):
        return None
    time.sleep(LAST_WORDS_SECONDS)
    return LOST_PEER
