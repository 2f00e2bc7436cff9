"""Approval commands: approve and reject candidates; promote releases to channels."""

import argparse
import functools
import getpass

from relabel.releases.approvals import Word, approved, decide, groups_of, publish_approved, read_decisions
from relabel.releases.candidates import read_candidate
from relabel.releases.channels import read_moves
from relabel.releases.doctor import require_commits
from relabel.releases.release import CANDIDATE

from .reporting import Reporter
from .store_commands import open_store
from .terminal import Add, add_store, emit, say


def declare(add: Add) -> None:
    commands: tuple[tuple[str, Word, str], ...] = (
        ("approve", "approved", "say yes to a candidate that waits; it is published once every group did"),
        ("reject", "rejected", "say no to a candidate that waits; it is not published"),
    )
    for name, word, text in commands:
        sub = add(name, functools.partial(decide_command, word=word), text)
        add_store(sub)
        sub.add_argument("candidate", metavar="CANDIDATE", help="its run, as `relabel candidates STORE` lists it")
        sub.add_argument("--by", required=True, metavar="NAME", help="who says so")
        sub.add_argument("--reason", required=True, metavar="TEXT", help="why; the release records it")
        sub.add_argument("--group", metavar="G", help="for whom; needed where several groups must approve")
    promote = add("promote", promote_command, "move a channel such as `prod` to a release; every move is kept")
    add_store(promote)
    promote.add_argument("release", metavar="N", help="a number, a tag, a channel or `latest`")
    promote.add_argument("--to", required=True, metavar="CHANNEL")
    promote.add_argument("--by", default=None, metavar="NAME", help="who says so (default: you)")
    promote.add_argument("--reason", default="", metavar="TEXT")
    add_store(add("channels", channels_command, "list a store's channels and their moves"))


def decide_command(options: argparse.Namespace, word: Word) -> int:
    store = open_store(options).objects
    require_commits(store)
    candidate = read_candidate(store, options.candidate.removeprefix(CANDIDATE))
    decision = decide(store, candidate, word, options.by, options.reason, options.group)
    decisions = approved(store, candidate)
    page = [functools.partial(Reporter, store)] if (candidate.version.recipe or {}).get("report") else []
    release = publish_approved(store, candidate, decisions, *page) if decisions else None
    said = read_decisions(store, candidate.run_id)
    missing = [group for group in groups_of(candidate) if group not in said]
    if options.json:
        fields = {"decision": decision.to_json(), "missing": missing, "release": release.version if release else None}
        emit(fields)
        return 0
    say(f"candidate {candidate.run_id}: {decision}")
    if release is not None:
        say(f"published release {release.version} of {store.url}")
    elif word == "approved":
        say(f"  waits for {', '.join(missing)}" if missing else "  rejected by another group: it is not published")
    return 0


def promote_command(options: argparse.Namespace) -> int:
    store = open_store(options)
    before = store.channels().get(options.to)
    move = store.promote(options.release, options.to, options.by or getpass.getuser(), options.reason)
    if options.json:
        emit(move.to_json())
    elif before == move.release:
        say(f"nothing to do: {options.to} is release {move.release} already, since {move.created} ({move.by})")
    else:
        was = f", before it release {before}" if before is not None else ""
        say(f"{options.to} is release {move.release} of {store.url} from now on{was}")
    return 0


def channels_command(options: argparse.Namespace) -> int:
    store = open_store(options)
    moves, recalls = read_moves(store.objects), store.recalls()
    if options.json:
        emit({name: [move.to_json() for move in each] for name, each in moves.items()})
        return 0
    for name, each in moves.items():
        now = each[-1].release
        bad = f", which is RECALLED ({recalls[now]}): `relabel promote` moves it" if now in recalls else ""
        say(f"{name} is release {now}{bad}")
        for move in reversed(each):
            say(
                f"    {move.created}  release {move.release} by {move.by}" + (f": {move.reason}" if move.reason else "")
            )
    if not moves:
        say("none: `relabel promote STORE N --to NAME` makes one")
    return 0
