"""Who is told what: the log always, and people where `--notifier` names a way to reach them.

`notices` decides what is news, `outbox` sends it without keeping anybody waiting, `once` makes one message of what a
whole fleet has to say, and `slack`, `mail` and `others` reach people.
"""

from dewy.notify.message import Channel, HookRun, Message, NotSent, Weight
from dewy.notify.notices import Notices
from dewy.notify.once import Once
from dewy.notify.outbox import Outbox
from dewy.notify.post import Post
from dewy.notify.sender import Sender
from dewy.notify.urls import open_channel

__all__ = [
    "Channel",
    "HookRun",
    "Message",
    "NotSent",
    "Notices",
    "Once",
    "Outbox",
    "Post",
    "Sender",
    "Weight",
    "open_channel",
]
