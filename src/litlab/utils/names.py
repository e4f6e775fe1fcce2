"""Names that become part of a path: of data sets, runs and studies.

Apart from `paths`, for pydantic takes a tenth of a second and `--help` does without.
"""

import re
from collections.abc import Container
from typing import Annotated

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from litlab.utils.errors import ConfigError
from litlab.utils.paths import PIPELINE

LONGEST = 100  # bytes; a file system takes 255, and prefixes, suffixes and numbers are added


def _at_most(size: int) -> AfterValidator:
    def check(name: str) -> str:
        if len(name.encode()) > size:
            raise ValueError(f"longer than {size} bytes in UTF-8")
        return name

    return AfterValidator(check)


# Neither separator, colon nor leading dot: no name leads out of the folder that it is put into.
Name = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][\w.-]*$",
        max_length=LONGEST,
        description="a name of at most 100 letters, digits, '_', '-' and '.'",
    ),
    _at_most(LONGEST),
]


def not_the_pipelines(name: str) -> str:
    """Refuse the name of the folders that DVC empties.

    Raises:
        ValueError: It is that name, also where a file system does not tell capitals apart.
    """
    if name.lower() == PIPELINE:
        raise ValueError(f"'{name}' is reserved for the folders of the DVC pipeline")
    return name


DataName = Annotated[
    Name,
    AfterValidator(not_the_pipelines),
    Field(
        description="a name of at most 100 letters, digits, '_', '-' and '.', and not "
        f"'{PIPELINE}', the folder of the DVC pipeline"
    ),
]
# A trial is called <study>-0003, and its configuration needs a `Name`.
StudyName = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9][\w-]*$", max_length=60),
    _at_most(60),
    AfterValidator(not_the_pipelines),
]


def extended(name: str, suffix: str, setting: str) -> str:
    """Return `<name>-<suffix>`, which is a name too.

    Raises:
        ConfigError: It would be too long; `setting` holds the name.
    """
    longer = f"{name}-{suffix}"
    try:
        return TypeAdapter(Name).validate_python(longer)
    except ValidationError:
        what = f"'{longer}' is longer than {LONGEST} bytes"
        raise ConfigError(what, setting, "choose a shorter name") from None


def file_name(text: str, taken: Container[str] = ()) -> str:
    """Return a file's name for a text that may hold anything, such as a column's name.

    Whatever a file system could take for more than a name becomes "_"; a number follows where the
    result is taken already.
    """
    name = short = re.sub(r"[^\w.-]+", "_", text).encode()[:LONGEST].decode(errors="ignore")
    number = 2
    while name in taken:
        name, number = f"{short}-{number}", number + 1
    return name
