"""`spillway key create|list|revoke`: works on the store directly; a gateway that serves notices within half a second."""

import argparse
import asyncio
import json
import os
import re
import sys
from collections import UserDict
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from spillway import config
from spillway.app.system import SystemClock, SystemRng
from spillway.core.clock import Seconds
from spillway.core.errors import UsageError
from spillway.core.ids import KeyId, ModelName, TenantId
from spillway.core.priority import Priority
from spillway.store.minting import LONGEST_LIFE_S, fingerprint_of, mint, seal_of
from spillway.store.opening import Stores, sqlite_path
from spillway.store.rows import MAX_PAGE_ROWS, Audit, KeyRow
from spillway.store.settings import Settings

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_NAME = re.compile(r"[!-~]{1,128}")


class Place(msgspec.Struct):
    """Which store is meant. `models`: every name that clients may use, where a configuration says them."""

    home: Path
    settings: Settings = Settings()
    models: dict[str, ModelName] | None = None
    seal: str | None = None  # what the configuration says of it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="create|list|revoke", required=True)
    create = actions.add_parser("create", help="make a key; its secret is shown once")
    create.add_argument("--tenant", required=True, help="whom the key belongs to")
    create.add_argument("--name", default="", help="what it is for, in your words")
    create.add_argument("--models", metavar="A,B", help="which models it may use; all where not given")
    create.add_argument(
        "--priority",
        type=Priority,
        choices=list(Priority),
        default=Priority.INTERACTIVE,
        help="the most urgent it may ask for",
    )
    create.add_argument("--expires-in", metavar="30d", help="a number and s, m, h, d or w; never where not given")
    listing = actions.add_parser("list", help="show keys, without their secrets")
    listing.add_argument("--tenant", help="only this tenant's")
    listing.add_argument("--all", action="store_true", help="revoked and expired ones too")
    revoke = actions.add_parser("revoke", help="end a key")
    revoke.add_argument("key", metavar="KEY_ID")
    for action in (create, listing, revoke):
        action.add_argument("--config", type=Path, metavar="FILE", help="the gateway's configuration")
        action.add_argument("--home", type=Path, metavar="DIR", help="instead of the configuration's home (.spillway)")
        action.add_argument("--json", action="store_true")


def run(arguments: argparse.Namespace) -> int:
    place = place_of(arguments)
    file = sqlite_path(place.settings.url, place.home)
    if arguments.action != "create" and file is not None and not file.exists():
        raise UsageError(f"there is no database in the home {place.home}: give the gateway's with --home or --config")
    match arguments.action:
        case "create":
            return asyncio.run(_create(place, arguments))
        case "list":
            return asyncio.run(_list(place, arguments))
        case _:
            return asyncio.run(_revoke(place, arguments))


def place_of(arguments: argparse.Namespace) -> Place:
    if arguments.config is None:
        return Place(arguments.home or Path(".spillway"))
    configuration = config.load(arguments.config, Lenient(os.environ))
    home = arguments.home or Path(configuration.gateway.home)
    return Place(home, configuration.store, configuration.public_names(), configuration.gateway.key_secret)


class Lenient(UserDict[str, str]):
    """An environment in which every variable but the proxies is set: a key can be revoked without a provider's secret at hand."""

    def __contains__(self, name: object) -> bool:
        return name in self.data or not str(name).lower().endswith("_proxy")

    def __missing__(self, name: str) -> str:
        if name not in self:
            raise KeyError(name)
        return "not-set-here-and-not-needed"


async def _create(place: Place, arguments: argparse.Namespace) -> int:
    if not _NAME.fullmatch(arguments.tenant):
        raise UsageError("--tenant: a name of 1 to 128 visible ASCII characters")
    clock, rng = SystemClock(), SystemRng()
    now_s = clock.wall()
    models = _models(arguments.models, place)
    expires_in_s = None if arguments.expires_in is None else duration_s(arguments.expires_in)
    async with Stores(place.settings, place.home) as stores:
        seal = seal_of(place.seal, place.home, rng)
        await stores.check_seal(fingerprint_of(seal))
        row, secret = mint(
            rng,
            seal,
            now_s=now_s,
            tenant=TenantId(arguments.tenant),
            name=arguments.name,
            models=models,
            highest_priority=arguments.priority,
            expires_at_s=None if expires_in_s is None else now_s + expires_in_s,
        )
        await stores.keys.add(row, _audit("key.create", row, None, row))
    if arguments.json:
        print(json.dumps({"secret": secret, **_shown(row)}))
    else:
        print(secret)
        print(f"{row.id} of {row.tenant}; the secret is not kept and cannot be shown again", file=sys.stderr)
    return 0


async def _list(place: Place, arguments: argparse.Namespace) -> int:
    now_s = SystemClock().wall()
    rows: list[KeyRow] = []
    async with Stores(place.settings, place.home) as stores:
        after: KeyId | None = None
        while page := await stores.keys.rows(tenant=arguments.tenant, after=after, limit=MAX_PAGE_ROWS):
            rows += [row for row in page if arguments.all or row.is_live(now_s)]
            after = page[-1].id
    if arguments.json:
        print(json.dumps({"keys": [_shown(row) for row in rows]}))
    else:
        for row in rows:
            models = "all models" if row.models is None else ",".join(sorted(row.models)) or "no model"
            state = _state(row, now_s)
            print(
                f"{row.id}  …{row.last4}  {row.tenant}  {row.highest_priority.value}  {models}  {state}  {row.name}".rstrip()
            )
    return 0


async def _revoke(place: Place, arguments: argparse.Namespace) -> int:
    async with Stores(place.settings, place.home) as stores:
        row = await stores.keys.row(KeyId(arguments.key))
        if row is not None and row.revoked_at_s is None:
            ended = msgspec.structs.replace(row, revoked_at_s=SystemClock().wall())
            await stores.keys.change(row, ended, _audit("key.revoke", row, row, ended))
    known = row is not None
    if arguments.json:
        print(json.dumps({"id": arguments.key, "revoked": known}))
    elif known:
        print(f"{arguments.key} is revoked")
    else:
        print(f"spillway key: there is no key {arguments.key}", file=sys.stderr)
    return 0 if known else 1


def _audit(action: str, row: KeyRow, before: KeyRow | None, after: KeyRow) -> Audit:
    return Audit(
        at_s=SystemClock().wall(),
        actor="cli",
        action=action,
        target=row.id,
        organization=None,
        before=None if before is None else json.dumps(_shown(before)).encode(),
        after=json.dumps(_shown(after)).encode(),
    )


def duration_s(text: str) -> Seconds:
    """Seconds of `90s`, `15m`, `12h`, `30d`, `2w`. UsageError for anything else."""
    match = re.fullmatch(r"([0-9]{1,6})([smhdw])", text)
    if match is None or not 0 < (life_s := int(match[1]) * _UNITS_S[match[2]]) <= LONGEST_LIFE_S:
        raise UsageError(f"--expires-in {text}: a number and s, m, h, d or w, such as 30d, at most 100 years")
    return life_s


def _models(text: str | None, place: Place) -> frozenset[ModelName] | None:
    if text is None:
        return None
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or not all(_NAME.fullmatch(name) for name in names):
        raise UsageError("--models: names of models with commas between them")
    if place.models is None:
        return frozenset(map(ModelName, names))
    unknown = [name for name in names if name not in place.models]
    if unknown:
        raise UsageError(f"--models: the configuration has no model {', '.join(unknown)}")
    return frozenset(place.models[name] for name in names)


def _shown(row: KeyRow) -> dict[str, object]:
    return {
        "id": row.id,
        "tenant": row.tenant,
        "name": row.name,
        "models": None if row.models is None else sorted(row.models),
        "priority": row.highest_priority.value,
        "created_at_s": row.created_at_s,
        "expires_at_s": row.expires_at_s,
        "revoked_at_s": row.revoked_at_s,
        "last4": row.last4,
    }


def _state(row: KeyRow, now_s: Seconds) -> str:
    if row.revoked_at_s is not None:
        return f"revoked {_day(row.revoked_at_s)}"
    if row.expires_at_s is None:
        return "live"
    return f"{'until' if now_s < row.expires_at_s else 'expired'} {_day(row.expires_at_s)}"


def _day(at_s: Seconds) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d")
