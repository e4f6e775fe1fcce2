"""Source -> checked, split, checksummed arrays with their DataSpec."""

import inspect
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from litlab.config.instantiate import build
from litlab.config.schema import DataConfig
from litlab.data.leakage.chance import by_chance
from litlab.data.leakage.check import LeakageCheck
from litlab.data.leakage.report import FILE_NAME as REPORT_NAME
from litlab.data.leakage.report import OLD_NAMES, SHOWN, Finding, LeakageReport, Place, many
from litlab.data.loading import file_of, num_windows, sha256
from litlab.data.prepare import decisions
from litlab.data.prepare.overview import doubts, overview, refuse_unknown
from litlab.data.prepare.source_files import alone, cannot_write, fingerprints, staged_folder
from litlab.data.prepare.split import SplitRows, check_settings, cut, own_test_split, split_hash
from litlab.data.prepare.validate import check_chunk, check_raw, check_splits
from litlab.data.prepare.write_arrays import RunningStatistics, SplitWriter
from litlab.data.raw import Raw
from litlab.data.spec import FILE_NAME, SPLITS, Array, Column, DataSpec
from litlab.utils.errors import ConfigError, DataError, EnvironmentFault
from litlab.utils.output import say, track
from litlab.utils.paths import short
from litlab.utils.redact import redact_spec

CHUNK_BYTES = 8 * 2**20  # of stored values at a time
CHUNK_ROWS = 8192  # where a sample's size is not known before it is encoded
COPIES = ("exact_duplicates", "near_duplicates")
TARGETS = {"regression": np.float32, "multi_label": np.uint8}


def prepare(config: DataConfig, folder: Path, trust: list[str] | None = None) -> DataSpec:
    """Read a source and write its prepared arrays, all or nothing, into a folder.

    Memory holds a few chunks at a time, the targets, and about a hundred bytes a sample.

    Raises:
        ConfigError: The settings do not fit the source.
        DataError: The data are not fit to train on.
        EnvironmentFault: The data are neither on disk nor available from the network, or a file
            cannot be read or written.
    """
    with alone(folder):
        return prepare_alone(config, folder, trust)


def prepare_alone(config: DataConfig, folder: Path, trust: list[str] | None = None) -> DataSpec:
    """Do what `prepare` does, for who holds the folder's lock already."""
    check_settings(config)
    _refuse_other_files(folder)
    source = build(config.source, where="data.source", trust=trust or ())
    with staged_folder(folder) as (staged, scratch):
        try:
            first = _Preparation(read(source, scratch), config, staged)
            first.write()
            copies = first.copies()
            if not copies:
                return first.finish()
            # Copies across splits are few or none, so they are not looked for beforehand. Without
            # them, other things may be learnt from train: everything is read and fitted again.
            del first
            (scratch / "again").mkdir()
            second = _Preparation(read(source, scratch / "again"), config, staged, copies)
            second.write()
            return second.finish()
        except (OSError, SafetensorError) as error:
            raise cannot_write(error, folder) from None


def _refuse_other_files(folder: Path) -> None:
    """Replace prepared data only: a folder of that name may hold files of the user's."""
    others = [folder.name] if folder.is_file() else []
    if folder.is_dir():
        splits = (file_of(folder, split).name for split in SPLITS)
        reports = (REPORT_NAME, *OLD_NAMES, "reading.json", "tokenizer.json")
        known = {FILE_NAME, *splits, *reports, ".DS_Store"}
        others = sorted(path.name for path in folder.iterdir() if path.name not in known)
    if others:
        raise DataError(
            f"not a folder of prepared data: it holds {others[0]}, which would be deleted",
            short(folder),
            "move it away, or choose another data.name (or --out)",
        )


def read(source: Any, scratch: Path) -> Raw:
    """Read a source, which may ask for a folder to spool into.

    Raises:
        ConfigError: It is no source.
        DataError: The data are not fit to train on.
    """
    if not hasattr(source, "read"):
        what = f"{type(source).__name__} is not a source of arrays: nothing is prepared"
        raise ConfigError(what, "data.source._target_", "train with it: `litlab train`")
    spools = "scratch" in inspect.signature(source.read).parameters
    raw = source.read(scratch=scratch) if spools else source.read()
    if not isinstance(raw, Raw):
        raise ConfigError(
            f"read() returned {type(raw).__name__}, not litlab.data.raw.Raw",
            "data.source._target_",
            "return a Raw",
        )
    return raw


class _Preparation:
    """One source on its way into a folder, without samples that are copies across its splits."""

    def __init__(
        self, raw: Raw, config: DataConfig, folder: Path, copies: Mapping[str, Array] | None = None
    ) -> None:
        self.raw, self.config, self.folder = raw, config, folder
        self.source = str(config.source["_target_"])
        check_raw(raw, self.source)
        self.dtype = raw.dtype
        self.rows = cut(raw, config)
        self.left_out: Finding | None = None
        if copies:
            self.left_out = _left_out(copies, self._name)
            self.rows |= {split: self.rows[split].without(index) for split, index in copies.items()}
            _refuse_empty(self.rows, self.left_out)
        for message in check_splits(raw, {s: self._targets(s) for s in self.rows}, config.allow):
            warnings.warn(message, stacklevel=4)
        self.moments = RunningStatistics(255.0 if self.dtype == "uint8" else 1.0)
        self.lengths: dict[str, int] = {}
        self.shape: tuple[int, ...] = ()
        self.unknown: dict[str, float] = {}
        self.brightest = 0

    def write(self) -> None:
        """Write every split, with the leakage check looking on."""
        encoder = self.raw.encoder
        if encoder is not None:
            say(f"{self.config.name}: fitting on the train split")
            encoder.fit(lambda: (chunk for _, chunk in self._chunks("train")))
        self.check = self._leakage_check()
        for split in self.rows:
            self._write(split)

    def kept_in(self) -> list[str]:
        """Return the splits in which copies are kept, by precedence.

        What a publisher held out stays whole, so that its scores can be compared; of other equal
        samples the one in train stays.
        """
        own = [split for split in ("test", "val") if self.rows[split].part == split]
        return [*own, *(split for split in SPLITS if split not in own)]

    def copies(self) -> dict[str, Array]:
        """Return what is to be left out: samples that are in another split too, by split."""
        allowed = self.config.duplicates != "drop" or "exact_duplicates" in self.config.allow
        if allowed or self.raw.task == "language_model":  # a text is not cut in its middle
            return {}
        found = self.check.copies(self.kept_in())
        for split, chance in self._by_chance(found).items():
            found[split] = found[split][~chance]
        return {split: index for split, index in found.items() if len(index)}

    def _by_chance(self, found: Mapping[str, Array]) -> dict[str, Array]:
        """Which of these samples, by split, equal another by chance: rows of few values."""
        if self.raw.kind != "tabular" or not found:
            return {}
        train = self._mapped("train")
        chance = {}
        for split, index in found.items():
            places = np.searchsorted(self.rows[split].index, index)
            chance[split] = by_chance(train, self._mapped(split)[places])
        return chance

    def _mapped(self, split: str) -> Array:
        """The stored values of a split, mapped from its file and not read."""
        with safe_open(file_of(self.folder, split), framework="pt") as file:
            values: Array = file.get_tensor("x").numpy()
        return values

    def finish(self) -> DataSpec:
        """Write the spec; refuse what the leakage check finds."""
        encoder = self.raw.encoder
        files = [file_of(self.folder, split) for split in self.rows]
        checksums = {path.name: sha256(path) for path in files}
        spec = DataSpec.model_validate(self._describe(checksums))
        reading = self._show(spec)
        for note in (*self.raw.notes(), *(encoder.notes() if encoder else ())):
            say(note)
        report = self._report()
        for line in report.lines():
            say(line)
        self._refuse(report)
        texts = {REPORT_NAME: report.model_dump_json(indent=2) + "\n", "reading.json": reading}
        texts |= {"tokenizer.json": spec.tokenizer} if spec.tokenizer is not None else {}
        for name, text in texts.items():
            path = self.folder / name
            path.write_text(text, encoding="utf-8")
            checksums[name] = sha256(path)
        spec = spec.model_copy(update={"checksums": checksums})
        spec.save(self.folder)
        return spec

    def _report(self) -> LeakageReport:
        """What the leakage check found; copies that are none but by chance do not stop."""
        found = self.check.copies(self.kept_in())
        chance = self._by_chance(found)
        number = sum(int(rows.sum()) for rows in chance.values())
        only_chance = number == sum(map(len, found.values()))
        return self.check.finish().settle(number if only_chance else 0, self.left_out)

    def _refuse(self, report: LeakageReport) -> None:
        """Stop for what leaks between splits; warn where it is to be kept."""
        allow: list[str] = list(self.config.allow)
        allow += ["exact_duplicates"] if self.config.duplicates == "keep" else []
        kept = []
        if self.config.duplicates != "refuse":
            # Whether samples that look alike are copies only the user can tell.
            kept = [f for f in report.stopping(allow) if f.check in COPIES]
        for finding in kept:
            warnings.warn(
                f"{finding.message} ({finding.examples(self._name)}); scores may be too good: "
                f"{finding.fix}, or accept it with data.allow=[{finding.check}]",
                stacklevel=4,
            )
        report.refuse([*allow, *(finding.check for finding in kept)], self._name)

    def _name(self, place: Place) -> str:
        """A sample's name for messages: its file or line where the source knows them."""
        split, index = place
        rows = self.rows[split]
        if self.raw.place is None:
            return f"{split} {index}"
        start = int(rows.index[0] - rows.rows[0])  # of the part, among all samples
        return f"{split} {self.raw.place(rows.part, index - start)}"

    def _show(self, spec: DataSpec) -> str:
        """Say what the data were taken for; return it as JSON, to be kept beside the arrays."""
        filled = {
            "decisions": (*self.raw.reading.decisions, *own_test_split(self.raw, self.config)),
            "own": tuple(
                split for split, rows in self.rows.items() if rows.part == split != "train"
            ),
            "unknown": self.unknown,
            "brightest": self.brightest if self.dtype == "uint8" else None,
        }
        reading = self.raw.reading.model_copy(update=filled)
        if self.config.strict:
            decisions.refuse(reading, spec.name)
        for line in (*overview(spec, reading), *decisions.lines(reading)):
            say(line)
        refuse_unknown(spec, reading)
        for doubt in doubts(spec, reading):
            warnings.warn(doubt, stacklevel=5)
        return reading.model_dump_json(indent=2) + "\n"

    def _write(self, split: str) -> None:
        rows, encoder = self.rows[split], self.raw.encoder
        before = _token_counts(encoder)
        y = self._targets(split)
        group = self.config.group
        groups = self.raw.columns[rows.part][group] if group else None
        path = file_of(self.folder, split)
        with SplitWriter(path, self.dtype, y, rows.index) as file:
            done = 0
            for places, content in track(self._chunks(split), len(rows.rows), f"writing {split}"):
                x = encoder.encode(content) if encoder else stored(self.raw, content)
                check_chunk(self.raw, x, places, f"{self.source}, part '{rows.part}'", self.shape)
                here = slice(done, done + len(places))
                done += len(places)
                file.add(x)
                if not isinstance(x, list):
                    self.shape = x.shape[1:]
                    if split == "train":
                        self.moments.add(x.astype(self.dtype, copy=False))
                        self.brightest = max(self.brightest, int(x.max()) if x.dtype == "u1" else 0)
                self.check.add(
                    split,
                    rows.index[here],
                    x,
                    y[here],
                    content,
                    group=None if groups is None else groups[places],
                )
            self.lengths[split] = file.number
        unknown, tokens = _token_counts(encoder) - before
        if tokens:
            self.unknown[split] = float(unknown / tokens)

    def _leakage_check(self) -> LeakageCheck:
        described = self.raw.encoder.describe() if self.raw.encoder else {}
        columns = [Column.model_validate(column) for column in described.get("columns", ())]
        codes = tuple(1 + len(c.categories) for c in columns if c.kind == "categorical")
        names = tuple(described.get("features", self.raw.features))
        classes = tuple(self.raw.classes)
        return LeakageCheck(self.raw.kind, self.raw.task, classes, codes, names, self.folder)

    def _targets(self, split: str) -> Array:
        rows = self.rows[split]
        targets: Array = self.raw.parts[rows.part][1][rows.rows]
        return targets.astype(TARGETS.get(self.raw.task, np.int64))

    def _chunks(self, split: str) -> Iterator[tuple[Array, Any]]:
        """Pairs of row numbers in the part, and what the source has there."""
        rows = self.rows[split]
        inputs = self.raw.parts[rows.part][0]
        shape = None if self.raw.encoder else getattr(inputs, "shape", None)
        size = CHUNK_ROWS
        if shape is not None:
            sample = math.prod(shape[1:]) * np.dtype(self.dtype).itemsize
            size = max(1, CHUNK_BYTES // max(sample, 1))
        chunk = np.arange(len(rows.rows)) // size
        sizes = getattr(inputs, "sizes", None)  # bytes of each sample, where they differ
        if sizes is not None:
            chunk += np.cumsum(sizes[rows.rows]) // CHUNK_BYTES
        for places in np.split(rows.rows, np.flatnonzero(np.diff(chunk)) + 1):
            try:
                content = inputs[places]
            except OSError as error:
                fix = "check the files, and the disk they are on"
                raise EnvironmentFault(f"cannot be read: {error}", self.source, fix) from None
            yield places, content

    def _describe(self, checksums: dict[str, str]) -> dict[str, Any]:
        raw = self.raw
        regression = raw.task == "regression"
        train = self._targets("train")
        targets = RunningStatistics()
        if regression:
            targets.add(train)
        target_mean, target_std = targets.result()
        described: dict[str, Any] = {
            "name": self.config.name,
            "source": self.source,
            "kind": raw.kind,
            "task": raw.task,
            "shape": self.shape,
            "dtype": self.dtype,
            "classes": tuple(raw.classes),
            "targets": tuple(raw.targets),
            "features": tuple(raw.features),
            "target_mean": target_mean,
            "target_std": target_std,
            "vocabulary": tuple(raw.vocabulary),
            "vocab_size": len(raw.vocabulary) or None,
            "pad_id": raw.pad_id,
            "image_fit": raw.image_fit,
            "sizes": {split: len(rows.rows) for split, rows in self.rows.items()},
            "licence": raw.licence,
            "origin": raw.origin,
            "settings": self.config.model_dump(mode="json"),
            "checksums": checksums,
            "split_hash": split_hash({split: rows.index for split, rows in self.rows.items()}),
            "source_files": fingerprints(raw.files),
        }
        if raw.task == "classification":
            counts = np.bincount(train, minlength=len(raw.classes))
            described["class_counts"] = tuple(map(int, counts))
        if raw.task == "multi_label":
            described["class_counts"] = tuple(map(int, train.sum(0, dtype=np.int64)))
        if raw.kind == "text" and raw.encoder is None:
            described["shape"] = (raw.parts[self.rows["train"].part][0].shape[1],)
        described["mean"], described["std"] = self.moments.result()
        described |= raw.encoder.describe() if raw.encoder else {}
        if raw.task == "language_model":
            described["sizes"] = self._windows(described["shape"][0])
        return _with_codes_as_they_are(redact_spec(described))

    def _windows(self, context_length: int) -> dict[str, int]:
        sizes = {s: num_windows(tokens, context_length) for s, tokens in self.lengths.items()}
        for split, size in sizes.items():
            if not size:
                raise DataError(
                    f"the {split} split has {self.lengths[split]} tokens, and a context of "
                    f"{context_length} needs {context_length + 1}",
                    "data.source.context_length",
                    f"lower it, raise data.{split}_fraction, or give more text",
                )
        return sizes


def _left_out(copies: Mapping[str, Array], name: Callable[[Place], str]) -> Finding:
    """What is said of copies that are left out."""
    counts = {split: len(index) for split, index in copies.items()}
    number = sum(counts.values())
    places = [(split, int(i)) for split, index in copies.items() for i in index[:SHOWN]]
    shown = ", ".join(map(name, places[:SHOWN])) + (", ..." if number > SHOWN else "")
    what = many(number, "copy", "copies")
    of = ", ".join(f"{n} of {split}" for split, n in counts.items())
    message = f"{what} left out: {of}, equal to samples of another split ({shown})"
    return Finding(
        check="exact_duplicates", stops=False, count=number, counts=counts, message=message
    )


def _refuse_empty(rows: Mapping[str, SplitRows], left_out: Finding) -> None:
    empty = [split for split, of_split in rows.items() if not len(of_split.rows)]
    if empty:
        what = f"nothing is left of {' and '.join(empty)}: {left_out.message}"
        raise DataError(what, "data.duplicates", "give other data, or set data.duplicates=keep")


def _token_counts(encoder: Any) -> Array:
    """How many unknown tokens, and how many in all, a tokenizer has given so far."""
    return np.array([getattr(encoder, name, 0) for name in ("unknown", "tokens")])


def _with_codes_as_they_are(described: dict[str, Any]) -> dict[str, Any]:
    """Give the codes of categorical columns the mean 0 and deviation 1: they are no amounts."""
    codes = [column.kind == "categorical" for column in described.get("columns", ())]
    for name, neutral in (("mean", 0.0), ("std", 1.0)):
        values = zip(described[name], codes, strict=True) if codes else ()
        described[name] = tuple(neutral if c else v for v, c in values) or described[name]
    return described


def stored(raw: Raw, content: Array) -> Array | list[Array]:
    """Turn what a source without an encoder gives into stored values: texts lose their padding."""
    if raw.kind != "text":
        return content
    real = content != raw.pad_id if raw.pad_id is not None else np.ones(content.shape, bool)
    ends = content.shape[1] - real[:, ::-1].argmax(1)
    ends = np.where(real.any(1), ends, 1)  # an empty text keeps one token of padding
    return [ids[:end] for ids, end in zip(content, ends, strict=True)]
