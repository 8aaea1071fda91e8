"""The rendezvous of torch's agent with itself, for ranks of one machine.

torch's own unpickles what any peer stores under its keys. This one has no peers: the agent keeps
its notes in memory, and its ranks connect to a store on 127.0.0.1 of which nothing is unpickled.
"""

from torch.distributed import HashStore  # type: ignore[attr-defined]
from torch.distributed.elastic.rendezvous import (
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
    RendezvousStoreInfo,
    rendezvous_handler_registry,
)

from recsys.training.engine.loopback import HOST, open_store

BACKEND = "recsys-loopback"


class LoopbackRendezvous(RendezvousHandler):
    """The meeting of one agent with itself: its ranks share the store that it keeps."""

    def __init__(self, parameters: RendezvousParameters) -> None:
        self.run_id = parameters.run_id
        self.store = open_store()

    def get_backend(self) -> str:
        """Return the name in torch's registry."""
        return BACKEND

    @property
    def use_agent_store(self) -> bool:
        """Whether the ranks connect to the agent's store in place of opening one."""
        return True

    def next_rendezvous(self) -> RendezvousInfo:
        """Return where the ranks meet; the agent's own notes stay in its memory."""
        return RendezvousInfo(HashStore(), 0, 1, RendezvousStoreInfo(HOST, self.store.port))

    def is_closed(self) -> bool:
        """Whether no rank may join any more; ranks are started once."""
        return False

    def set_closed(self) -> None:
        """Do nothing: no other process needs to know."""

    def num_nodes_waiting(self) -> int:
        """Return how many more machines want to join."""
        return 0

    def get_run_id(self) -> str:
        """Return the name of the job."""
        return self.run_id

    def shutdown(self) -> bool:
        """Do nothing: the store ends with the agent."""
        return True


rendezvous_handler_registry.register(BACKEND, LoopbackRendezvous)
