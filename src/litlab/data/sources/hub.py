from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from litlab.config.hyperparameters import Cell, Count
from litlab.data.encode.text import TextEncoder
from litlab.data.raw import Raw
from litlab.data.sources import hub_columns
from litlab.data.sources.hub_fetch import DatasetFiles, find, load, name_parts
from litlab.data.sources.unused import refuse_unused
from litlab.data.spec import Array

Task = Literal["classification", "regression"]
# The settings that are for one kind of data only.
OF_KIND = {
    "image": ("size", "fit", "color"),
    "text": ("empty", "tokenizer", "vocab_size", "min_frequency", "lowercase", "max_length"),
    "tabular": (
        *("numeric", "categorical", "drop"),
        *("na_values", "impute", "scale", "max_categories", "dates", "missing_target"),
    ),
}


class Hub:
    """A data set of the Hugging Face hub, or files of one's own that `datasets` reads.

    Files: a folder of Parquet, CSV, JSON lines or images, one such file, or what `save_to_disk`
    wrote. From the hub, the chosen configuration's files are fetched into the hub's cache; code in
    its repository is not run. Samples are read from Arrow files and need not fit in memory.

    Args:
        path: A file or folder, relative to the project's root; if there is none, a name on the hub.
        config: Which of the data set's configurations; null: its default or only one.
        revision: Branch, tag or commit on the hub; null: the newest.
        kind: auto: image where a column holds images, text where a single one holds strings and
            none but the target numbers, else tabular.
        task: auto: regression where the target holds floats, or in a table many different numbers.
        input: Column of the images or texts; null: the only one.
        target: Column to predict; null: the only one with named classes, or one called label.
        train_split: Name of the split to train on; an only split is taken whatever its name.
        val_split: Name of the one for validation. If null, and the next too, both by usual names.
        test_split: Name of the one to test on.
        size: Of images: height and width, or one number for both; null: all are of one size.
        fit: resize: images are squashed to the size; crop: scaled to cover it, and cut.
        color: Of images: rgb, gray, or auto: gray if all are.
        empty: What a text without a character is: refused, or one padding token.
        tokenizer: Of texts: word, char or bpe, as for the source Text.
        vocab_size: At most so many tokens are told apart.
        min_frequency: What is seen less often in the train split is unknown, or not merged.
        lowercase: Whether case is ignored.
        max_length: Tokens kept of a text.
        numeric: Of tables, as for the source Table: columns of numbers.
        categorical: Columns of categories.
        drop: Columns to leave out.
        group: Column of what stays in one split. conf/ hands data.group on.
        time: Column to split by. conf/ hands data.time on.
        dates: Formats of columns of dates.
        na_values: Cells that mean that nothing is known, beside those of the default.
        missing_target: What becomes of rows of a table without a target.
        impute: What becomes of missing cells.
        scale: How numbers are scaled.
        max_categories: More different values than these are text.

    Raises:
        ValueError: `vocab_size` is too small for the tokenizer.
    """

    def __init__(
        self,
        *,
        path: str,
        config: str | None = None,
        revision: str | None = None,
        kind: Literal["auto", "image", "text", "tabular"] = "auto",
        task: Literal["auto", "classification", "regression"] = "auto",
        input: str | None = None,
        target: str | None = None,
        train_split: str = "train",
        val_split: str | None = None,
        test_split: str | None = None,
        size: Count | tuple[Count, Count] | None = None,
        fit: Literal["resize", "crop"] = "resize",
        color: Literal["rgb", "gray", "auto"] = "auto",
        empty: Literal["refuse", "pad"] = "refuse",
        tokenizer: Literal["word", "char", "bpe"] = "word",
        vocab_size: Count = 10000,
        min_frequency: Count = 2,
        lowercase: bool = True,
        max_length: Count = 256,
        numeric: tuple[str, ...] = (),
        categorical: tuple[str, ...] = (),
        drop: tuple[str, ...] = (),
        group: str | None = None,
        time: str | None = None,
        dates: dict[str, str] | None = None,
        na_values: tuple[Cell, ...] = (),
        missing_target: Literal["drop", "refuse"] | None = None,
        impute: Literal["refuse", "median", "mean", "indicator"] | None = None,
        scale: Literal["standard", "quantile"] = "standard",
        max_categories: Count = 1000,
    ) -> None:
        self.given = {name: value for name, value in locals().items() if name != "self"}
        self.path, self.config, self.revision = path, config, revision
        self.kind, self.task, self.input, self.target = kind, task, input, target
        self.splits = (train_split, val_split, test_split)
        self.size = (size, size) if isinstance(size, int) else size
        self.fit, self.color, self.empty = fit, color, empty
        words: dict[str, Any] = {"unit": tokenizer, "vocab_size": vocab_size}
        words |= {"lowercase": lowercase, "max_length": max_length}
        self.encoder = TextEncoder(min_frequency=min_frequency, **words)
        table: dict[str, Any] = {"group": group, "time": time, "impute": impute, "scale": scale}
        table |= {"numeric": tuple(numeric), "categorical": tuple(categorical)}
        table |= {"na_values": tuple(na_values), "max_categories": max_categories}
        table |= {"dates": dates, "missing_target": missing_target}
        self.table = {**table, "drop": tuple(drop)}

    def read(self, scratch: Path) -> Raw:
        """Return the data set; what it has to be converted to is put into `scratch`.

        Raises:
            ConfigError: There is no such column, split, configuration or revision.
            DataError: It cannot be read, labels or inputs are missing, or it needs code of its own.
            EnvironmentFault: It is not on this machine, and the hub does not give it.
        """
        found = find(self.path, self.config, self.revision)
        parts, left_out = name_parts(load(found, scratch), *self.splits)
        features = next(iter(parts.values())).features
        target = hub_columns.find_target(features, self.target)
        hub_columns.check_target(features[target], target, self.path)
        kind, column = hub_columns.find_input(features, self.kind, self.input, target)
        self._refuse_unused(kind)
        readers = {"image": self._images, "text": self._texts}
        if kind == "tabular":
            raw = self._table(parts, target, scratch)
        else:
            raw = readers[kind](parts, column, target, found, scratch)
        notes = [f"splits left out: {', '.join(left_out)}"] if left_out else []
        given = {part: f"split '{data.split}'" for part, data in parts.items() if data.split}
        unread = [name for name in features if kind != "tabular" and name not in (column, target)]
        reading = {
            "target": target,
            "parts": given,
            "left_out": dict.fromkeys(unread, "not the input") | raw.reading.left_out,
        }
        return replace(
            raw,
            licence=found.licence,
            origin=found.origin,
            files=[found.path] if found.is_users else [],
            notes=lambda: [*notes, *raw.notes()],
            reading=raw.reading.model_copy(update=reading),
        )

    def _refuse_unused(self, kind: str) -> None:
        """Refuse settings of other kinds of data than this."""
        others = [name for other in OF_KIND if other != kind for name in OF_KIND[other]]
        refuse_unused(Hub, self.given, others, f"the data are of kind {kind}")
        if kind == "tabular":
            refuse_unused(Hub, self.given, ["input"], "a table's inputs are all its columns")
        if self.size is None:
            refuse_unused(Hub, self.given, ["fit"], "images keep their size without size")

    def _images(
        self, parts: Mapping[str, Any], column: str, target: str, found: DatasetFiles, scratch: Path
    ) -> Raw:
        from litlab.data.sources.hub_columns import Images, shape_images

        roots = [root.resolve() for root in (found.root, scratch)]
        images = {p: Images(dataset, column, self.path, roots) for p, dataset in parts.items()}
        notes = shape_images(images, self.size, self.fit, self.color)
        raw = self._labelled(parts, images, target)
        return replace(
            raw, kind="image", image_fit=self.fit if self.size else None, notes=lambda: notes
        )

    def _texts(
        self, parts: Mapping[str, Any], column: str, target: str, found: DatasetFiles, scratch: Path
    ) -> Raw:
        texts = {part: hub_columns.Texts(dataset, column) for part, dataset in parts.items()}
        if self.empty == "refuse":
            hub_columns.check_texts(texts, column, self.path)
        return replace(self._labelled(parts, texts, target), kind="text", encoder=self.encoder)

    def _labelled(self, parts: Mapping[str, Any], inputs: Mapping[str, Any], target: str) -> Raw:
        """Put the parts' targets beside their inputs."""
        task: Task = "classification"
        classes: list[str] = []
        dtype = str(next(iter(parts.values())).features[target].dtype)
        if self.task == "regression" or (self.task == "auto" and dtype.startswith("float")):
            task = "regression"
            targets: dict[str, Array] = hub_columns.amounts(parts, target, self.path)
        else:
            classes, targets = hub_columns.class_targets(parts, target, self.path)
        return Raw(
            kind="text",
            task=task,
            parts={part: (inputs[part], targets[part]) for part in parts},
            licence="",
            origin="",
            classes=classes,
            targets=[target] if task == "regression" else [],
            columns={part: hub_columns.Columns(dataset) for part, dataset in parts.items()},
        )

    def _table(self, parts: Mapping[str, Any], target: str, scratch: Path) -> Raw:
        """Hand the parts on to the source Table, as Parquet."""
        from litlab.data.sources.hub_columns import read_as_table

        return read_as_table(
            parts, scratch, where=self.path, target=target, task=self.task, **self.table
        )
