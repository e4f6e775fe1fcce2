"""What a source decided by itself: shown, recorded, or refused with `data.strict=true`."""

from collections.abc import Sequence

from litlab.config.quoting import typed
from litlab.data.raw import Decision, Reading
from litlab.utils.errors import DataError
from litlab.utils.files import dumps

MOST_LISTED = 20


def lines(reading: Reading) -> list[str]:
    """Return a line per decision and per suggestion, each with the setting as it is typed."""
    return [
        *_listed("decided", reading.decisions),
        *_listed("to consider", reading.suggestions),
    ]


def refuse(reading: Reading, name: str) -> None:
    """Refuse data of which anything had to be decided, all of it at once.

    Raises:
        DataError: There are decisions; the fix is the overrides that settle them.
    """
    if not reading.decisions:
        return
    reasons = "; ".join(f"{d.setting.rpartition('.')[2]}: {d.why}" for d in reading.decisions)
    settings = " ".join(override(decision) for decision in reading.decisions)
    what = f"data.strict=true, and {len(reading.decisions)} settings are left open ({reasons})"
    raise DataError(what, name, f"confirm or change them: {settings}")


def override(decision: Decision) -> str:
    """Return a decision as the override that settles it, ready for a shell."""
    return typed(f"{decision.setting}={_value(decision.value)}")


def _value(value: object) -> str:
    """A value as Hydra's grammar writes it: quotes only where they are needed."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_item, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{_item(k)}:{_item(v)}" for k, v in value.items()) + "}"
    return value if isinstance(value, str) else dumps(value)


def _item(value: object) -> str:
    if isinstance(value, str):
        return value if value.replace("_", "").isalnum() else dumps(value, ensure_ascii=False)
    return _value(value)


def _listed(kind: str, decisions: Sequence[Decision]) -> list[str]:
    shown = [f"{kind}: {override(d)} ({d.why})" for d in decisions[:MOST_LISTED]]
    more = len(decisions) - MOST_LISTED
    return shown + ([f"{kind}: {more} more, in reading.json"] if more > 0 else [])
