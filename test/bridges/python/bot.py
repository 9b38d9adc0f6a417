"""A bridge of mautrix's framework with end-to-bridge encryption, which repeats what it hears as one of its ghosts.

Arguments: the homeserver's URL, its name, the registration's file, the port to listen at, a folder for its database,
and how it gets messages to its devices: transactions or sync.
"""

import asyncio
import sys
from pathlib import Path

from aiohttp import web
from mautrix.bridge import BaseBridgeConfig, BaseMatrixHandler, BasePortal, BaseUser, Bridge
from mautrix.types import EventType, MessageType, TextMessageEventContent
from mautrix.util.async_db import UpgradeTable
from ruamel.yaml import YAML

HOMESERVER, DOMAIN, REGISTRATION, PORT, FOLDER, MODE = sys.argv[1:]
BOT, GHOST = "_x_bot", f"@_x_ghost:{DOMAIN}"

upgrades = UpgradeTable()


@upgrades.register(description="The rooms of the bridge")
async def upgrade_v1(conn):
    await conn.execute("CREATE TABLE portal (mxid TEXT PRIMARY KEY, encrypted BOOLEAN NOT NULL)")


def config():
    registration = YAML(typ="safe").load(Path(REGISTRATION))
    by_transactions = MODE == "transactions"
    return {
        "homeserver": {
            "address": HOMESERVER,
            "domain": DOMAIN,
            "software": "standard",
            "verify_ssl": False,
            "connection_limit": 10,
            "http_retry_count": 20,
            "status_endpoint": None,
            "message_send_checkpoint_endpoint": None,
        },
        "appservice": {
            "id": registration["id"],
            "as_token": registration["as_token"],
            "hs_token": registration["hs_token"],
            "hostname": "127.0.0.1",
            "port": int(PORT),
            "max_body_size": 10,
            "bot_username": BOT,
            "bot_displayname": "Echo",
            "bot_avatar": "",
            "ephemeral_events": True,
            "database": f"sqlite:{FOLDER}/bridge.db",
            "database_opts": {"min_size": 1, "max_size": 1},
        },
        "bridge": {
            "command_prefix": "!echo",
            "encryption": {
                "allow": True,
                "default": True,
                "require": True,
                "appservice": by_transactions,
                "msc4190": by_transactions,
                "verification_levels": {"receive": "unverified", "send": "unverified", "share": "unverified"},
                "allow_key_sharing": True,
                "delete_keys": {},
                "rotation": {"enable_custom": False, "disable_device_change_key_rotation": False},
            },
        },
        "logging": {
            "version": 1,
            "handlers": {"console": {"class": "logging.StreamHandler"}},
            "root": {"level": "DEBUG", "handlers": ["console"]},
            "loggers": {"aiosqlite": {"level": "INFO"}},
        },
    }


class Config(BaseBridgeConfig):
    def load(self):
        with open(self.path, "w") as out:
            YAML().dump(config(), out)
        super().load()


class User(BaseUser):
    def __init__(self, bridge, mxid):
        self.bridge, self.az, self.loop, self.mxid = bridge, bridge.az, bridge.loop, mxid
        super().__init__()
        self.is_whitelisted, self.is_admin = True, False

    async def is_logged_in(self):
        return True

    async def get_puppet(self):
        return None

    async def get_portal_with(self, puppet, create=True):
        return None


class Portal(BasePortal):
    bridge_info_state_key, bridge_info = "echo", {}

    def __init__(self, bridge, mxid, encrypted):
        super().__init__()
        self.bridge, self.az, self.loop, self.matrix = bridge, bridge.az, bridge.loop, bridge.matrix
        self.mxid, self.encrypted, self.is_direct, self.name = mxid, encrypted, False, None
        self.ghost = bridge.az.intent.user(GHOST)

    async def save(self):
        query = (
            "INSERT INTO portal (mxid, encrypted) VALUES ($1, $2) "
            "ON CONFLICT (mxid) DO UPDATE SET encrypted=excluded.encrypted"
        )
        await self.bridge.db.execute(query, self.mxid, self.encrypted)

    async def delete(self):
        await self.bridge.db.execute("DELETE FROM portal WHERE mxid=$1", self.mxid)

    async def get_dm_puppet(self):
        return None

    async def handle_matrix_message(self, sender, message, event_id):
        content = TextMessageEventContent(msgtype=MessageType.TEXT, body=f"echo: {message.body}")
        await self._send_message(self.ghost, content)


class Matrix(BaseMatrixHandler):
    user_id_prefix, user_id_suffix = "@_x_", f":{DOMAIN}"

    async def accept_bot_invite(self, room_id, inviter):
        """The room becomes one of the bridge: the bot joins, which reads, and the ghost, which talks."""
        await self.az.intent.join_room(room_id)
        found = await self.az.intent.get_state_event(room_id, EventType.ROOM_ENCRYPTION)
        await self.az.state_store.set_encryption_info(room_id, found)
        portal = Portal(self.bridge, room_id, True)
        await portal.save()
        self.bridge.portals[room_id] = portal
        await self.az.intent.invite_user(room_id, GHOST)
        await portal.ghost.join_room(room_id)
        await self.az.intent.get_joined_members(room_id)


class Echo(Bridge):
    module, name, description, command, version = "echo", "echo", "A bridge that repeats", "echo", "1"
    config_class, matrix_class, upgrade_table = Config, Matrix, upgrades

    def __init__(self):
        super().__init__()
        self.portals, self.users, self.ready = {}, {}, asyncio.Event()

    def prepare_arg_parser(self):
        super().prepare_arg_parser()
        sys.argv[1:] = ["--config", f"{FOLDER}/config.yaml"]

    def prepare_appservice(self):
        super().prepare_appservice()
        self.az.app.middlewares.append(self.when_ready)

    @web.middleware
    async def when_ready(self, request, handler):
        """mautrix loses what it is sent before it has loaded its keys."""
        if request.method == "PUT":
            await self.ready.wait()
        return await handler(request)

    def load_and_update_config(self):
        self.config.load()

    async def start(self):
        await super().start()
        self.ready.set()
        print("the bridge has started", flush=True)

    async def get_user(self, user_id, create=True):
        if user_id not in self.users:
            self.users[user_id] = User(self, user_id)
        return self.users[user_id]

    async def get_portal(self, room_id):
        if room_id not in self.portals:
            row = await self.db.fetchrow("SELECT encrypted FROM portal WHERE mxid=$1", room_id)
            if row is None:
                return None
            self.portals[room_id] = Portal(self, room_id, bool(row["encrypted"]))
        return self.portals[room_id]

    async def get_puppet(self, user_id, create=False):
        return None

    async def get_double_puppet(self, user_id):
        return None

    def is_bridge_ghost(self, user_id):
        return user_id.startswith("@_x_")

    async def count_logged_in_users(self):
        return 1


Echo().run()
