"""The bar is drawn by the clock, and for the last batch of an epoch in any case."""

from types import SimpleNamespace

from lightning.pytorch.callbacks import RichProgressBar

from litlab import progress


def test_the_bar_is_drawn_a_few_times_a_second(monkeypatch) -> None:
    drawn, now = list[int](), [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(progress.Bar, "total_train_batches", 100)
    monkeypatch.setattr(
        RichProgressBar, "on_train_batch_end", lambda self, *args: drawn.append(args[-1])
    )
    bar = progress.Bar()
    for batch_idx in range(100):
        bar.on_train_batch_end(None, None, {}, None, batch_idx)
        now[0] += progress.SECONDS / 10
    assert drawn[0] == 0
    assert drawn[-1] == 99
    assert 9 <= len(drawn) <= 12
