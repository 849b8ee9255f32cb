"""The tasks in memory."""

import io

import pytest
from celeriac import TaskFailure, TransientFailure
from celeriac.testing import read_file, run_task, store_file
from PIL import Image

from acme_images.contracts import DrawSheet, MakeThumbnails, OrderPrints, SimulateCooling
from acme_images.tasks import draw_sheet, make_thumbnails, order_prints, simulate_cooling


def test_pictures_become_thumbnails(holiday):
    ran = run_task(make_thumbnails, MakeThumbnails(archive=store_file(holiday, "holiday.zip").uri, longest_px=64))
    assert ran.result.skipped == ["readme.txt"]
    sizes = [Image.open(io.BytesIO(read_file(one.uri))).size for one in ran.result.thumbnails]
    assert sizes == [(64, 32), (32, 64), (64, 64)]
    assert [one.media_type for one in ran.artifacts] == ["image/png"] * 3
    assert [report["current"] for report in ran.progress] == [1, 2, 3]


def test_what_is_not_a_zip_says_what_to_do():
    with pytest.raises(TaskFailure) as failed:
        run_task(make_thumbnails, MakeThumbnails(archive=store_file("hello", "holiday.zip").uri))
    assert (failed.value.code, failed.value.remedy) == ("not_a_zip", "Upload a ZIP.")


def test_a_sheet_shows_all(holiday):
    made = run_task(make_thumbnails, MakeThumbnails(archive=store_file(holiday, "holiday.zip").uri, longest_px=64))
    uris = [one.uri for one in made.result.thumbnails]
    ran = run_task(draw_sheet, DrawSheet(pictures=uris, columns=2))
    assert ran.result.count == 3
    assert Image.open(io.BytesIO(read_file(ran.result.sheet.uri))).size == (128, 128)


def test_a_simulation_goes_on_where_it_was():
    whole = run_task(simulate_cooling, SimulateCooling(step_count=1_200))
    half = run_task(simulate_cooling, SimulateCooling(step_count=700))
    assert half.checkpoint["step"] == 500
    rest = run_task(simulate_cooling, SimulateCooling(step_count=1_200), last_checkpoint=half.checkpoint)
    assert (whole.result.resumed_at, rest.result.resumed_at) == (0, 500)
    assert read_file(rest.result.profile.uri) == read_file(whole.result.profile.uri)


def test_a_busy_shop_is_transient(shop):
    job = OrderPrints(customer="c-1", album="holiday", count=3)
    shop.busy = 1
    with pytest.raises(TransientFailure) as failed:
        run_task(order_prints, job, connections=shop.connections)
    assert (failed.value.code, failed.value.retry_after_s) == ("shop_busy", 0)
    assert run_task(order_prints, job, connections=shop.connections).result.order == "o-1"
    assert len(shop.orders) == 1


def test_a_refusal_is_final(shop):
    shop.refuses = True
    job = OrderPrints(customer="c-1", album="holiday", count=3)
    with pytest.raises(TaskFailure, match="order_refused: The shop answered 422"):
        run_task(order_prints, job, connections=shop.connections)


def test_a_shop_that_is_not_configured_is_not_asked(shop):
    with pytest.raises(TaskFailure, match="unknown_connection: The connection 'corner' is not configured"):
        run_task(order_prints, OrderPrints(customer="c-1", album="holiday", count=3))
    assert shop.asked == 0
