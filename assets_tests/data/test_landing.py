"""What a landing file may be, and what happens to one that is not."""

import hashlib
import re
from datetime import timedelta

import pytest

from assets_tests.data.landing_world import Shop, frame, month, orders
from boucle.errors import LandingError
from boucle_adapters.landing_zone import checksum_file, publish, published, read_landing
from boucle_platform.defs.repurchase.schema import ORDERS


@pytest.fixture
def shop(tmp_path):
    return Shop(tmp_path)


def refused(shop: Shop, match: str) -> None:
    """Landing the file that is there is refused, and the period stays as it was."""
    before = shop.counts()
    with pytest.raises(LandingError, match=match) as error:
        shop.land_file()
    assert "The period stays as it was" in str(error.value)
    assert shop.counts() == before


def write(shop: Shop, content: bytes) -> None:
    """A source system that writes no checksum."""
    shop.file().write_bytes(content)
    checksum_file(shop.file()).unlink(missing_ok=True)


def test_a_good_file_lands_as_version_one(shop):
    receipt, rejected = shop.land()
    assert (receipt.version, receipt.rows, receipt.quarantined, receipt.changed) == (1, 40, 0, True)
    assert receipt.source_file == "repurchase/orders/1997-04.csv"
    assert rejected.empty


def test_money_lands_exact_to_the_cent(shop):
    shop.land([*orders(), ("00099", "1997-04-09", "2", "1119.70")])
    assert shop.warehouse.query("SELECT CAST(max(amount_usd) AS VARCHAR) AS m FROM raw.orders")["m"][0] == "1119.70"


def test_a_file_landed_twice_changes_nothing(shop):
    first, _ = shop.land()
    second, _ = shop.land(now=month("1997-04").end + timedelta(days=3))
    assert (second.version, second.changed) == (1, False)
    assert second.content_digest == first.content_digest
    assert shop.counts() == {1: 40}


def test_the_same_rows_in_another_order_change_nothing(shop):
    shop.land()
    receipt, _ = shop.land(orders()[::-1])
    assert not receipt.changed


def test_a_corrected_file_becomes_version_two_and_the_old_version_stays(shop):
    shop.land()
    receipt, _ = shop.land([*orders(), ("00099", "1997-04-09", "2", "5.00")])
    assert (receipt.version, receipt.changed) == (2, True)
    assert shop.counts() == {1: 40, 2: 41}


def test_a_correction_taken_back_is_version_three(shop):
    shop.land()
    shop.land(orders(count=41))
    receipt, _ = shop.land()
    assert receipt.version == 3


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (("00099", "1997-04-09", "1", "-3.00"), "amount_usd: not at least 0 (value -3.00)"),
        (("00099", "1997-04-09", "0", "3.00"), "cds: not at least 1 (value 0)"),
        (("00099", "1997-04-09", "1", "3.001"), "amount_usd: not an amount with at most two decimals (value 3.001)"),
        (("", "1997-04-09", "1", "3.00"), "customer_id: missing"),
        (
            ("00099", "2030-01-01", "1", "3.00"),
            "order_date: not a day of the period 1997-04-01 to 1997-04-30 (value 2030-01-01 00:00:00)",
        ),
        (
            ("00099", "1997-05-01", "1", "3.00"),
            "order_date: not a day of the period 1997-04-01 to 1997-04-30 (value 1997-05-01 00:00:00)",
        ),
        (orders()[0], "duplicate row"),
    ],
    ids=["negative amount", "no cd", "third decimal", "no customer", "future date", "day after the end", "duplicate"],
)
def test_a_broken_row_is_set_aside_with_its_line_and_reason(shop, broken, reason):
    receipt, rejected = shop.land([*orders(), broken])
    assert (receipt.rows, receipt.quarantined) == (40, 1)
    row = rejected.iloc[0]
    assert (row["reason"], row["line_number"], row["source_file"]) == (reason, 42, "repurchase/orders/1997-04.csv")
    assert tuple(row[list(ORDERS.column_names)]) == broken


def test_a_file_with_every_order_twice_is_refused(shop):
    shop.land()
    publish(frame(orders() * 2), shop.file())
    refused(shop, r"40 of 80 rows .*50\.0%, limit 5\.0%.*line 42: duplicate row")


def test_a_missing_column_is_named(shop):
    shop.land()
    publish(frame(orders()).drop(columns="amount_usd"), shop.file())
    refused(shop, "column 'amount_usd' is missing")


def test_an_unknown_column_is_named(shop):
    shop.land()
    publish(frame(orders()).assign(colour="red"), shop.file())
    refused(shop, "column 'colour' is unknown")


def test_a_column_that_is_there_twice_is_named(shop):
    shop.land()
    write(shop, b"customer_id,order_date,cds,amount_usd,cds\n1,1997-04-01,1,1.00,1\n")
    refused(shop, "column 'cds' is there twice")


def test_columns_in_another_order_land_the_same(shop):
    shop.land()
    publish(frame(orders())[["cds", "customer_id", "amount_usd", "order_date"]], shop.file())
    assert not shop.land_file()[0].changed


@pytest.mark.parametrize("content", [b"", b"\n", b"customer_id,order_date,cds,amount_usd\n"])
def test_an_empty_file_is_refused(shop, content):
    shop.land()
    write(shop, content)
    refused(shop, "1997-04.csv is empty")


def test_a_file_cut_half_way_is_refused_by_its_checksum(shop):
    shop.land()
    content = shop.file().read_bytes()
    shop.file().write_bytes(content[: len(content) // 2])
    refused(shop, "truncated or was changed: its SHA-256 is")


@pytest.mark.parametrize("cut", range(1, 30))
def test_a_file_cut_anywhere_but_after_a_line_is_refused_without_a_checksum(shop, cut):
    shop.land()
    content = shop.file().read_bytes()
    write(shop, content[:-cut])
    if content[:-cut].endswith(b"\n"):
        assert shop.land_file()[0].rows == 39
    else:
        refused(shop, "is truncated")


def test_a_last_line_with_too_few_fields_is_truncated(shop):
    shop.land()
    write(shop, shop.file().read_bytes() + b"00099,1997-04\n")
    refused(shop, "is truncated: its last line has 2 fields, the header has 4")


def test_a_line_with_too_many_fields_is_named(shop):
    shop.land()
    write(shop, b"customer_id,order_date,cds,amount_usd\n1,1997-04-01,1,1,00\n2,1997-04-01,1,1.00\n")
    refused(shop, "is malformed: line 2 has 5 fields")


def test_a_file_that_is_not_utf_8_is_refused_with_the_byte(shop):
    shop.land()
    write(shop, shop.file().read_bytes() + "é,1997-04-01,1,1.00\n".encode("latin-1"))
    refused(shop, "not UTF-8: byte .* is 0xe9")


def test_an_open_quote_is_refused(shop):
    shop.land()
    write(shop, shop.file().read_bytes() + b'"00099,1997-04-01,1,1.00\n')
    refused(shop, "not readable CSV")


def test_a_missing_file_is_named_with_what_to_do(shop):
    shop.land()
    shop.file().unlink()
    refused(shop, "repurchase/orders/1997-04.csv cannot be read")


def test_a_file_far_smaller_than_earlier_periods_is_refused(shop):
    shop.land(orders(count=200))
    publish(frame(orders("1997-05", 29)), shop.file("1997-05"))
    with pytest.raises(LandingError, match=r"29 rows, 0\.14 of the median 200 of 1 earlier periods"):
        shop.land_file("1997-05")


def test_volume_is_not_compared_with_later_periods(shop):
    shop.land(orders("1997-05", 300), key="1997-05")
    assert shop.land(orders("1997-04", 10))[0].rows == 10


def test_a_published_file_has_its_checksum_in_the_format_of_sha256sum(shop):
    digest = publish(frame(orders()), shop.file())
    assert digest == hashlib.sha256(shop.file().read_bytes()).hexdigest()
    assert re.fullmatch(rf"{digest}  1997-04\.csv\n", checksum_file(shop.file()).read_text())


def test_published_periods_are_listed_oldest_first_without_drafts(shop):
    for key in ("1997-05", "1997-04"):
        publish(frame(orders(key)), shop.file(key))
    (shop.file().parent / ".1997-06.csv.draft").write_text("half")
    assert published(shop.home / "landing", ORDERS.model, ORDERS.name) == ("1997-04", "1997-05")


def test_a_quoted_line_break_does_not_shift_the_rows(tmp_path):
    file = tmp_path / "1997-04.csv"
    file.write_text('customer_id,note\n1,"two\nlines"\n2,x\n')
    text = read_landing(file, ("customer_id", "note")).rows
    assert text.to_dict("records") == [
        {"customer_id": "1", "note": "two\nlines", "line_number": 3},
        {"customer_id": "2", "note": "x", "line_number": 4},
    ]
