#!/usr/bin/env python3
"""Recounts a statement from the records of its calls: what a customer can run on its own exports.

    tollgate records   --account A --month 2026-11 --format jsonl > november.jsonl
    tollgate statement --account A --month 2026-11 --format json  > november.json
    python3 recount.py november.json november.jsonl

Calls of earlier months that came after those were fixed are billed in this one. Where the statement has such
late calls, the statement before and the exports of those months are needed as well:

    python3 recount.py november.json november.jsonl --before october.json --earlier october.jsonl

A month that was computed again with late entries (its adjustment is a line of this statement) is recounted
call by call when its own statement and export are given; else only its sums are:

    python3 recount.py november.json november.jsonl --adjusted october.json october.jsonl

It takes each call by itself through free pack, packs and post-paid. From the statement it takes only the
terms and the packs as they were ordered (and what was used of them before: compared with --before); every
count and every amount is its own. It says line by line what agrees. Exit code 1: with the first difference.
2: it could not be recounted. Standard library only.
"""

import argparse
import json
import re
import sys
from collections import Counter
from datetime import datetime, timedelta, timezone
from decimal import ROUND_HALF_UP, Decimal, localcontext

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
INSTANT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?(?:Z|([+-])(\d\d):(\d\d))"
)


# R8: by these an upstream says that it did no work and wants to be asked again.
NOT_SERVED = (408, 421, 425, 429)


class Differs(Exception):
    """The first thing that does not agree."""


class Unfit(Exception):
    """What was given cannot be recounted."""


def micros(text):
    """Microseconds since 1970 of an RFC 3339 instant, in whole numbers."""
    found = INSTANT.fullmatch(text)
    if not found:
        raise Unfit(f"{text!r} is not an instant")
    *clock, fraction, sign, hours, minutes = found.groups()
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    if sign == "-":
        offset = -offset
    at = datetime(*map(int, clock), tzinfo=timezone(offset))
    since = at - EPOCH
    whole = (since.days * 86_400 + since.seconds) * 1_000_000
    return whole + int((fraction or "0").ljust(6, "0"))


def agree(what, stated, recounted):
    if stated != recounted:
        raise Differs(f"{what}: the statement says {stated}, the records say {recounted}")
    print(f"ok  {what}: {recounted}")


def read_json(path):
    with open(path, encoding="utf-8") as file:
        try:
            return json.load(file, parse_float=Decimal)
        except json.JSONDecodeError as error:
            raise Unfit(f"{path} is not JSON: {error}") from error


def follows(record):
    """Whether a record's reason follows from its outcome and status (R8)."""
    outcome, status = record["outcome"], record["status"]
    was_answered = outcome in ("answered", "client_closed") and status is not None
    return {
        "": outcome != "gate_failed",
        "free": outcome != "gate_failed",
        "upstream_failed": not was_answered and outcome != "gate_failed",
        "server_error": was_answered and status >= 500,
        "not_served": was_answered and status in NOT_SERVED,
        "vetoed": was_answered,
        "client_incomplete": outcome == "client_incomplete",
        "gate_failed": outcome == "gate_failed",
    }.get(record["reason"], False)


def was_served(record):
    """Whether R8 bills a call that nobody vetoed."""
    status = record["status"]
    was_answered = record["outcome"] in ("answered", "client_closed") and status is not None
    return was_answered and status < 500 and status not in NOT_SERVED


def read_records(path, account):
    """The records of an export, each once: their seq ascends."""
    last = not_served = 0
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise Unfit(f"{path}:{number} is not JSON: {error}") from error
            if record["account"] != account:
                raise Differs(f"{path}:{number} is a call of account {record['account']}")
            if record["seq"] <= last:
                raise Differs(f"{path}:{number} has seq {record['seq']} after {last}")
            if record["billable"] != (record["reason"] == ""):
                raise Differs(f"{path}:{number} has a reason and is billable, or neither")
            if not follows(record):
                raise Differs(f"{path}:{number} does not bear out its reason {record['reason']!r}")
            not_served += record["billable"] and not was_served(record)
            last = record["seq"]
            yield record
    if not_served:
        print(f"    {path}: {not_served} billable calls were not served (R8): your contract must say "
              "that all admitted calls are billed")


class Group:
    """The calls of one group."""

    def __init__(self):
        self.listed = Counter()  # (action, mode): billable calls, and those of a free group
        self.not_billable = Counter()  # (action, mode, reason)
        self.late = 0
        self.admitted = 0
        self.keys = {}  # key: [calls, billable calls]
        self.per_call = []  # the instant of each billable call in per-call mode

    def add(self, record, at, late):
        action, mode, reason = record["action"], record["mode"], record["reason"]
        self.admitted += 1
        of_key = self.keys.setdefault(record["key"], [0, 0])
        of_key[0] += 1
        of_key[1] += record["billable"]
        self.late += late
        # R8, R2: what is not billable is listed by reason; a free group's calls are free, not failed.
        if reason == "" or (mode == "free" and reason == "free"):
            self.listed[action, mode] += 1
            if mode == "per_call":
                self.per_call.append(at)
        else:
            self.not_billable[action, mode, reason] += 1


def count(statement, records, before, earlier):
    """The calls that belong to the statement, by group."""
    account = statement["account"]
    begin, end = micros(statement["from"]), micros(statement["until"])
    counted_until = micros(statement["counted_until"])
    fixed = statement["fixed"]
    through = fixed["through_seq"] if fixed else None
    groups = {}
    too_late = 0
    for record in read_records(records, account):
        at = record["admitted_at"]
        if not begin <= at < end:
            raise Unfit(f"{records}: record {record['seq']} is not of {statement['month']}")
        # What came after it was fixed is a late call of the next month.
        if at >= counted_until or (through is not None and record["seq"] > through):
            too_late += 1
            continue
        groups.setdefault(record["group"], Group()).add(record, at, False)
    if too_late:
        print(f"    {too_late} records came after the statement: they are not on it")
    if before:
        fixed_before = before["fixed"]
        if not fixed_before or before["account"] != account or micros(before["until"]) != begin:
            raise Unfit("--before is not the fixed statement of the month before")
        after = fixed_before["through_seq"]
        seen = set()
        for path in earlier:
            for record in read_records(path, account):
                seq = record["seq"]
                late = seq > after and (through is None or seq <= through)
                if record["admitted_at"] < begin and late and seq not in seen:
                    seen.add(seq)
                    # Late calls are billed as calls of the month's first instant.
                    groups.setdefault(record["group"], Group()).add(record, begin, True)
    return groups


class Pack:
    """One pack; an order of several is several of these."""

    def __init__(self, order, place, left):
        self.order = order["order"]
        self.begins = micros(order["delivered"])
        ends = micros(order["expires"])
        # R12: soonest expiry first, then order of delivery, then place in the file.
        self.rank = (ends, self.begins, place)
        refunded = order["refunded"]
        self.ends = min(ends, micros(refunded)) if refunded else ends
        self.left = left


def packs_of(orders):
    packs = []
    for place, order in enumerate(orders):
        gone = order["used_before"]
        for _ in range(order["count"]):
            used = min(gone, order["calls"])
            gone -= used
            packs.append(Pack(order, place, order["calls"] - used))
        if gone:
            raise Differs(f"order {order['order']}: more was used before than it has")
    packs.sort(key=lambda pack: pack.rank)
    return packs


def walk(group, terms, orders):
    """Each call takes one from the free pack, else from the first pack that covers its own instant."""
    free_left = terms["free_calls"]
    packs = packs_of(orders)
    used = Counter()
    postpaid = 0
    for at in sorted(group.per_call):
        if free_left > 0:  # R10
            free_left -= 1
            continue
        covering = (p for p in packs if p.left > 0 and p.begins <= at < p.ends)  # R11, R12
        pack = next(covering, None)
        if pack is None:
            postpaid += 1
        else:
            pack.left -= 1
            used[pack.order] += 1
    return terms["free_calls"] - free_left, used, postpaid


def price(terms, billable, postpaid):
    """R13: all post-paid calls at the unit price of the tier that is reached."""
    basis = {"all_calls": billable, "postpaid_calls": postpaid}[terms["tier_basis"]]
    tier, unit = max(
        ((start, Decimal(unit)) for start, unit in terms["tiers"] if start <= basis),
        key=lambda tier: tier[0],
    )
    amount = (unit * postpaid).quantize(Decimal("0.01"), rounding=ROUND_HALF_UP)
    return basis, tier, unit, amount


def recount_group(stated, group, before, adjusted):
    """Compares one group's part; returns what is due of it and what was paid when ordered."""
    name = stated["group"]
    again = {}
    adjustments = recount_adjustments(stated, adjusted, again)

    def listed(rows, *keys):
        rows = [(tuple(row[key] for key in keys), row["calls"]) for row in rows]
        if len(dict(rows)) != len(rows):
            raise Differs(f"{name}: a kind of calls is listed twice")
        return dict(rows)

    calls = listed(stated["calls"], "action", "mode")
    not_billable = listed(stated["not_billable"], "action", "mode", "reason")
    for kind in sorted(calls.keys() | group.listed.keys()):
        agree(f"{name}: {' '.join(kind)} calls", calls.get(kind, 0), group.listed[kind])
    for kind in sorted(not_billable.keys() | group.not_billable.keys()):
        stated_calls = not_billable.get(kind, 0)
        agree(f"{name}: {' '.join(kind)} calls, not billable", stated_calls, group.not_billable[kind])
    agree(f"{name}: late calls among them", stated["late"], group.late)
    # There is no list by key when all calls are from before keys had ids.
    if set(group.keys) - {""} or stated.get("keys"):
        of_keys = {of["key"]: [of["calls"], of["billable"]] for of in stated.get("keys", [])}
        if len(of_keys) != len(stated.get("keys", [])):
            raise Differs(f"{name}: a key is listed twice")
        for key in sorted(of_keys.keys() | group.keys.keys()):
            told, counted = (keys.get(key, [0, 0]) for keys in (of_keys, group.keys))
            agree(f"{name}: calls and billable calls of key {key or '(none)'}", told, counted)
    qps = sum(calls for (_, mode), calls in group.listed.items() if mode == "qps")
    agree(f"{name}: calls in qps mode", stated["qps_calls"], qps)

    lines = []
    per_call = stated["per_call"]
    if per_call:
        terms, orders = per_call["terms"], per_call["packs"]
        tiers = ", ".join(f"from {start}: {unit}" for start, unit in terms["tiers"])
        print(f"    {name}: by these terms (compare them with your contract): {tiers}, by "
              f"{terms['tier_basis']}; {terms['free_calls']} free calls")
        agree(f"{name}: free calls granted", per_call["free"]["granted"], terms["free_calls"])
        carried_over(name, orders, before, again)
        billable = len(group.per_call)
        agree(f"{name}: billable calls in per-call mode", per_call["billable"], billable)
        free, used, postpaid = walk(group, terms, orders)
        agree(f"{name}: calls in the free pack", per_call["free"]["used"], free)
        agree(f"{name}: free calls left", per_call["free"]["left"], terms["free_calls"] - free)
        for order in orders:
            here = used[order["order"]]
            left = order["calls"] * order["count"] - order["used_before"] - here
            agree(f"{name}: calls covered by {order['order']}", order["used"], here)
            agree(f"{name}: calls left of {order['order']}", order["left"], left)
        stated_post = per_call["postpaid"]
        agree(f"{name}: post-paid calls", stated_post["calls"], postpaid)
        basis, tier, unit, amount = price(terms, billable, postpaid)
        agree(f"{name}: calls that decide the tier", stated_post["tier_calls"], basis)
        agree(f"{name}: the tier begins at", stated_post["tier_from"], tier)
        agree(f"{name}: price of a call", Decimal(stated_post["unit_price"]), unit)
        agree(f"{name}: post-paid amount", Decimal(stated_post["amount"]), amount)
        if postpaid:
            lines.append((postpaid, unit, amount))
        # R8: on the statement, too, every admitted call has exactly one fate.
        fates = per_call["free"]["used"] + sum(order["used"] for order in orders)
        fates += stated_post["calls"] + stated["qps_calls"] + sum(not_billable.values())
        fates += sum(calls for (_, mode), calls in calls.items() if mode == "free")
        agree(f"{name}: admitted calls, each with one fate", fates, group.admitted)
    stated_lines = [
        (line["calls"], Decimal(line["unit_price"]), Decimal(line["amount"]))
        for line in stated["lines"]
    ]
    agree(f"{name}: lines due", sums(stated_lines), sums(lines))
    paid = Decimal(0)
    for line in stated["paid"]:
        funds = sum(map(Decimal, line["funds"].values()), Decimal(0))
        agree(f"{name}: funds of {line['order']}", Decimal(line["amount"]), funds)
        paid += funds
    return sum((amount for *_, amount in lines), adjustments), paid


def recount_adjustments(stated, adjusted, used):
    """R16: what each fixed month costs when it is computed again, less what was charged for it.

    `adjusted`: by month, its own statement and its calls. `used`: by order, before the first of them;
    brought to what is used after the last.
    """
    name = stated["group"]
    total = Decimal(0)
    for line in stated.get("adjustments", []):
        month, per_call = line["month"], line["per_call"]
        what = f"{name}: {month} computed again"
        terms, orders, post = per_call["terms"], per_call["packs"], per_call["postpaid"]
        for order in orders:
            begun = used.get(order["order"], order["used_before"])
            agree(f"{what}: calls used of {order['order']} before", order["used_before"], begun)
            used[order["order"]] = order["used_before"] + order["used"]
        covered = per_call["free"]["used"] + sum(order["used"] for order in orders)
        agree(f"{what}: each call once", per_call["billable"], covered + post["calls"])
        if month in adjusted:
            own, groups = adjusted[month]
            group = groups.get(name, Group())
            agree(f"{what}: billable calls in per-call mode", per_call["billable"], len(group.per_call))
            free, taken, postpaid = walk(group, terms, orders)
            agree(f"{what}: calls in the free pack", per_call["free"]["used"], free)
            for order in orders:
                agree(f"{what}: calls covered by {order['order']}", order["used"], taken[order["order"]])
            agree(f"{what}: post-paid calls", post["calls"], postpaid)
            fixed = [g for g in own["groups"] if g["group"] == name]
            fixed = sum((Decimal(l["amount"]) for g in fixed for l in g["lines"]), Decimal(0))
            agree(f"{what}: what its statement charged", Decimal(line["fixed"]), fixed)
        *_, amount = price(terms, per_call["billable"], post["calls"])
        agree(f"{what}: due", Decimal(line["recomputed"]), amount)
        rest = amount - Decimal(line["fixed"]) - Decimal(line["adjusted_before"])
        agree(f"{what}: adjustment", Decimal(line["amount"]), rest)
        total += rest
    return total


def recount_balance(statement, due):
    """R16, R17: the balance after the statement."""
    balance = statement.get("balance")
    if balance:
        agree("debit", Decimal(balance["debit"]), due)
        changes = balance["payments"] + balance["adjustments"]
        after = Decimal(balance["before"]) + sum(Decimal(of["amount"]) for of in changes) - due
        agree("balance after", Decimal(balance["after"]), after)


def sums(lines):
    return "; ".join(f"{calls} x {unit} = {amount}" for calls, unit, amount in lines) or "none"


def carried_over(name, orders, before, again):
    """What was used of an order before is what the statement before ends with, or what the fixed months
    used when they were computed again."""
    ended = {}
    for group in before["groups"] if before else []:
        for order in (group["per_call"] or {"packs": []})["packs"]:
            ended[order["order"]] = order["used_before"] + order["used"]
    ended.update(again)
    for order in orders:
        if not before and order["order"] not in again:
            continue
        begun = ended.get(order["order"], 0)
        agree(f"{name}: calls used of {order['order']} before", order["used_before"], begun)


def recount(arguments):
    statement = read_json(arguments.statement)
    before = read_json(arguments.before) if arguments.before else None
    if not before and any(group["late"] for group in statement["groups"]):
        raise Unfit("the statement has late calls: give --before and --earlier")
    groups = count(statement, arguments.records, before, arguments.earlier)
    adjusted = {}
    for own, records in arguments.adjusted:
        own = read_json(own)
        if any(group["late"] for group in own["groups"]):
            raise Unfit(f"{own['month']} has late calls: it is not recounted as an adjusted month")
        adjusted[own["month"]] = own, count(own, records, None, [])
    due = Decimal(0)
    paid = sum((Decimal(amount) for line in statement.get("licences", []) for amount in line["funds"].values()), Decimal(0))
    for stated in statement["groups"]:
        group = groups.pop(stated["group"], Group())
        of_due, of_paid = recount_group(stated, group, before, adjusted)
        due, paid = due + of_due, paid + of_paid
    for name, group in groups.items():
        raise Differs(f"{name}: {group.admitted} calls of a group that is not on the statement")
    currency = statement["currency"]
    agree(f"paid when ordered, {currency}", Decimal(statement["paid_when_ordered"]), paid)
    agree(f"due at settlement, {currency}", Decimal(statement["due"]), due)
    recount_balance(statement, due)


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("statement", help="the statement in JSON")
    parser.add_argument("records", help="the records of its month, a JSON object a line")
    parser.add_argument("--before", help="the statement of the month before, in JSON")
    parser.add_argument("--earlier", action="append", default=[], help="records of an earlier month")
    parser.add_argument("--adjusted", action="append", default=[], nargs=2, metavar=("STATEMENT", "RECORDS"),
                        help="the statement and the records of a month that was computed again")
    arguments = parser.parse_args(words)
    try:
        with localcontext() as context:
            context.prec = 60
            recount(arguments)
    except Differs as difference:
        print(f"DIFFERS  {difference}")
        return 1
    except (Unfit, OSError, KeyError, TypeError, ValueError) as trouble:
        print(f"cannot recount: {trouble!r}", file=sys.stderr)
        return 2
    print("the statement agrees with the records")
    return 0


if __name__ == "__main__":
    sys.exit(main())
