"""Flower's engine in one process: real client apps, messages and contexts, faults by node."""

from collections.abc import Callable, Iterable

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run

Fault = Callable[[int, Message], bool]


class OneProcess(Grid):
    """A grid whose nodes are contexts, and whose app runs when it is asked.

    Attributes:
        asked, replied: every message to a node, and every reply, in order.
        lost: says of a node and a message whether the node fails at it.
    """

    def __init__(self, apps: dict[int, ClientApp], config: dict[int, dict[str, str]]) -> None:
        self.apps = apps
        self.contexts = {
            node: Context(1, node, dict(config.get(node, {})), RecordDict(), {}) for node in apps
        }
        self.asked: list[Message] = []
        self.replied: list[Message] = []
        self.lost: Fault = lambda node, message: False

    def set_run(self, run: Run) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Run:
        raise NotImplementedError

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        return Message(
            content, dst_node_id=dst_node_id, message_type=message_type, group_id=group_id
        )

    def get_node_ids(self) -> Iterable[int]:
        return list(self.apps)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        raise NotImplementedError

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        raise NotImplementedError

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        replies = []
        for message in messages:
            node = message.metadata.dst_node_id
            self.asked.append(message)
            if self.lost(node, message):
                replies.append(Message(Error(1, "lost"), reply_to=message))
                continue
            # Nothing but what Flower keeps outlasts a message.
            context = self.contexts[node]
            try:
                reply = self.apps[node](message, context)
            except Exception as error:
                reply = Message(Error(2, f"{type(error).__name__}: {error}"), reply_to=message)
            replies.append(reply)
            self.replied.append(reply)
        return replies
