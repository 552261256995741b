"""Class names become Rupiah values (D15): one name alone, and a whole set judged together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smartcash.domain.banknotes import (
    COINS,
    DENOMINATIONS,
    NOTES,
    colour_of,
    format_rupiah,
    value_of,
    values_of,
)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("1000", 1_000),
        ("Rp1.000", 1_000),
        ("Rp 1.000,-", 1_000),
        ("Rp1.000,00", 1_000),
        ("rp. 20.000", 20_000),
        ("IDR 50000", 50_000),
        ("IDR 50,000", 50_000),
        ("50 000", 50_000),
        ("50_000", 50_000),
        ("100.000", 100_000),
        ("１０００", 1_000),  # full-width digits
        ("1k", 1_000),
        ("100K", 100_000),
        ("100rb", 100_000),
        ("100 rb", 100_000),
        ("100RIBU", 100_000),
        ("1RIBU", 1_000),
        ("75ribu", 75_000),
        ("rp75rb", 75_000),
        ("20 ribu rupiah", 20_000),
        ("seribu", 1_000),
        ("Seribu Rupiah", 1_000),
        ("dua ribu", 2_000),
        ("LimaRibu", 5_000),
        ("sepuluhribu", 10_000),
        ("lima_puluh_ribu", 50_000),
        ("tujuh puluh lima ribu", 75_000),
        ("seratus ribu", 100_000),
        ("five_thousand", 5_000),
        ("one hundred thousand", 100_000),
        ("2000_baru", 2_000),
        ("1000-depan", 1_000),
        ("1000depan", 1_000),
        ("50000b", 50_000),
        ("uang_5000_belakang", 5_000),
        ("uang5000", 5_000),
        ("2016_10000", 10_000),
        ("10000_2022", 10_000),
        ("2000_2016", 2_000),
        ("TE2016 100000", 100_000),
        ("3_1000", 1_000),
        ("1000_1", 1_000),
        ("koin 500", 500),
        ("koin_1000", 1_000),
        ("500_logam", 500),
        ("Rp 100", 100),
        ("lima ratus", 500),
    ],
)
def test_a_name_that_can_be_read_alone_has_its_value(name, value):
    assert value_of(name) == value


@pytest.mark.parametrize(
    "name",
    [
        "",
        "RBC",
        "WBC",
        "Platelets",
        "coin",
        "koin",
        "person",
        "unknown",
        "background",
        "rupiah",
        "ribu",
        "k",
        "class0",
        "class1000",
        "class_3",
        "raccoon-150",
        "3000",
        "35 ribu",
        "tiga puluh lima ribu",
        "1000_5000",
        "200000",
        "100k_vnd",
        "$100",
        "1000 yen",
        "coin_2",
        # only a set of names can say what these are
        "001",
        "l2_050",
        "10_note",
        "100",
        "5",
    ],
)
def test_a_name_that_cannot_be_read_alone_has_no_value(name):
    assert value_of(name) is None


@pytest.mark.parametrize(
    ("names", "values"),
    [
        # thousands, when every bare number says so
        ("001 002 005 010 020 050 100", (1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000)),
        ("1 2 5 10 20 50 75 100", (1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 75_000, 100_000)),
        ("l1_001 l1_050 l2_050 l2_100", (1_000, 50_000, 50_000, 100_000)),
        ("1_note 10_note 100_note 500_coin", (1_000, 10_000, 100_000, 500)),
        ("50 100", (50_000, 100_000)),
        ("010 020 unknown", (10_000, 20_000, None)),
        ("satu dua lima sepuluh", (1_000, 2_000, 5_000, 10_000)),
        # and not when they are mere indices, or too few to tell
        ("0 1 2 3 4 5 6 7", (None,) * 8),
        ("1 2 3 5 10 20", (None,) * 6),
        ("1 2", (None, None)),
        ("class0 class1 class2 class5 class10", (None,) * 5),
        # full values, with coins beside them
        ("1000 2000 5000 10000", (1_000, 2_000, 5_000, 10_000)),
        ("100 200 500 1000 2000", (100, 200, 500, 1_000, 2_000)),
        ("1000 5000 500_koin", (1_000, 5_000, 500)),
        ("1k 2k 500", (1_000, 2_000, 500)),
        ("1000 2000 0", (1_000, 2_000, None)),
        ("100rb 50rb person", (100_000, 50_000, None)),
        ("1000_depan 1000_belakang", (1_000, 1_000)),
        # another country's money
        ("10 20 50 100 200 500 2000", (None,) * 7),
        ("10_note 50_note 100_note 1000_note 1_coin 10_coin", (None,) * 6),
        ("001000 010000 200000 500000", (None,) * 4),
        ("2_taka 5_taka 100", (None,) * 3),
        ("5 10 20 50 €", (None,) * 5),
        # what is certain stays certain
        ("1k 2k 5", (1_000, 2_000, None)),
        ("RBC WBC Platelets", (None,) * 3),
        ("", ()),
    ],
)
def test_a_set_of_names_is_judged_together(names, values):
    assert values_of(names.split()) == values


@given(st.lists(st.text(max_size=30), max_size=8))
def test_any_names_give_a_known_denomination_or_nothing(names):
    values = values_of(names)
    assert len(values) == len(names)
    assert all(value is None or value in DENOMINATIONS for value in values)


@given(st.permutations(["001", "l2_050", "100", "10_note", "500_coin", "unknown"]))
def test_the_order_of_the_names_does_not_matter(names):
    expected = {
        "001": 1_000,
        "l2_050": 50_000,
        "100": 100_000,
        "10_note": 10_000,
        "500_coin": 500,
        "unknown": None,
    }
    assert values_of(names) == tuple(expected[name] for name in names)


@given(st.sampled_from(NOTES))
def test_the_written_form_of_a_note_is_read_back(value):
    assert value_of(format_rupiah(value)) == value
    assert value_of(str(value)) == value
    assert value_of(f"{value // 1000}rb") == value


def test_rupiah_are_written_the_indonesian_way():
    assert format_rupiah(75_000) == "Rp75.000"
    assert format_rupiah(500) == "Rp500"
    assert format_rupiah(1_250_000) == "Rp1.250.000"
    assert format_rupiah(-5_000) == "-Rp5.000"
    assert format_rupiah(0) == "Rp0"


def test_every_denomination_has_its_own_colour():
    colours = [colour_of(value) for value in DENOMINATIONS]
    assert None not in colours
    assert len(set(colours)) == len(set(NOTES) | set(COINS))
    assert colour_of(None) is None
    assert colour_of(3) is None
