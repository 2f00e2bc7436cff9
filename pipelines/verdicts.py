"""Verdicts: what a gate found, as a release records it, in a few lines."""

from relabel.digests import Json


def told(verdict: Json) -> list[str]:
    """A recorded verdict in a few lines."""
    if verdict["verdict"] == "off":
        return ["off: the recipe asked for no checks"]
    checks = verdict["checks"]
    against = f"release {verdict['baseline']}" if verdict["baseline"] else "no release before it"
    refused = [check for check in checks if check["judged"] and not check["ok"]]
    head = f"{verdict['verdict']}: {len(checks) - len(refused)} of {len(checks)} checks passed, against {against}"
    lines = [head + ("" if verdict["gold"] else ", no gold")]
    if verdict["forced"]:
        lines.append(f"forced: {verdict['forced']}")
    if approval := verdict.get("approval"):
        decisions = approval.get("decisions", {})
        for group in approval["groups"]:
            said = decisions.get(group)
            lines.append(
                f"{said['word']} by {said['by']} ({group}): {said['reason']}"
                if said
                else f"waits for approval by {group}"
            )
    if verdict["expect_change"]:
        lines.append(f"declared: {verdict['expect_change']}")
    return lines + [
        f"{check['name']}{' of ' + check['of'] if check['of'] else ''}: {check['text']}" for check in refused
    ]
