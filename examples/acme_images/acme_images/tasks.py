"""The tasks of the image team. Only workers import this module."""

import zipfile
from pathlib import PurePosixPath

from celeriac import Run, TaskFailure

from acme_images import cooling, pictures, shop
from acme_images.connections import PrintShop
from acme_images.contracts import (
    Cooled,
    DrawSheet,
    MakeThumbnails,
    Ordered,
    OrderPrints,
    Picture,
    Sheet,
    SimulateCooling,
    Thumbnails,
)

_CHECKPOINT_EVERY = 500


@MakeThumbnails.task
def make_thumbnails(job: MakeThumbnails, run: Run) -> Thumbnails:
    """Publish a PNG for each picture of the ZIP."""
    thumbnails, skipped = [], []
    try:
        with run.open(job.archive) as archive:
            for index, (name, picture) in enumerate(pictures.pictures_in(archive)):
                if picture is None:
                    skipped.append(name)
                    continue
                local = run.scratch / f"{index:03d}-{PurePosixPath(name).stem[:40]}.png"
                pictures.shrink(picture, job.longest_px).save(local)
                thumbnails.append(run.publish(local, name=f"thumbnail-{index:03d}.png", role=Picture))
                run.progress(len(thumbnails), unit="pictures", message=name)
    except zipfile.BadZipFile as bad:
        raise TaskFailure("not_a_zip", f"{job.archive} is not a ZIP: {bad}.", remedy="Upload a ZIP.") from None
    run.log("made thumbnails", count=len(thumbnails), skipped=len(skipped))
    return Thumbnails(thumbnails=thumbnails, skipped=skipped)


@DrawSheet.task
def draw_sheet(job: DrawSheet, run: Run) -> Sheet:
    """Publish one PNG of all pictures."""
    local = run.scratch / "sheet.png"
    pictures.side_by_side([run.local(uri) for uri in job.pictures], job.columns).save(local)
    return Sheet(sheet=run.publish(local), count=len(job.pictures))


@SimulateCooling.task
def simulate_cooling(job: SimulateCooling, run: Run) -> Cooled:
    """Store the cells every few steps, so that a later attempt goes on there and gives the same."""
    state = run.last_checkpoint or {"step": 0, "cells": cooling.hot_in_the_middle(job.cell_count)}
    begun, cells = state["step"], state["cells"]
    for done in range(begun + 1, job.step_count + 1):
        cells = cooling.cooled(cells)
        if done % _CHECKPOINT_EVERY == 0:
            run.checkpoint({"step": done, "cells": cells})
            run.progress(done, job.step_count, unit="steps")
    local = run.scratch / "profile.csv"
    local.write_text("".join(f"{index},{cell!r}\n" for index, cell in enumerate(cells)), encoding="utf-8")
    return Cooled(warmest=max(cells), resumed_at=begun, profile=run.publish(local))


@OrderPrints.task
def order_prints(job: OrderPrints, run: Run) -> Ordered:
    """Order once for each customer and album, however often this is tried."""
    where = run.connection(job.shop, PrintShop)
    number = shop.order(where, run.idempotency_key, {"album": job.album, "count": job.count})
    return Ordered(order=number, attempts=run.attempt)
