from __future__ import annotations

import io
import logging
import socket
import sys
import zipfile
from datetime import date
from types import SimpleNamespace

import pytest

from melange import InputError, MelangeError
from melange.errors import MissingExtraError
from melange.interop.gpuhunt import fetch_catalog, our_provider, read_catalog

TODAY = date(2026, 11, 27)
DAY = date(2026, 11, 26)
HEADER = (
    "instance_name,location,price,cpu,memory,gpu_count,gpu_name,gpu_memory,spot,disk_size,gpu_vendor,flags,cpu_arch,"
    "provider_data\n"
)
AWS = HEADER + (
    "m5.large,us-east-1,0.096,2,8.0,0,,,False,,,,x86,{}\n"
    "g6.xlarge,us-east-1,0.8048,4,16.0,1,L4,24.0,False,,nvidia,,x86,{}\n"
    "g6.xlarge,us-east-1,0.35,4,16.0,1,L4,24.0,True,,nvidia,,x86,{}\n"
    "p4de.24xlarge,us-east-1,27.44705,96,1152.0,8,A100,80.0,False,,nvidia,,x86,{}\n"
    "g4ad.xlarge,us-east-1,0.3785,4,16.0,1,V520,,False,,amd,,x86,{}\n"
)
GCP = HEADER + (
    "g2-standard-4,us-central1-a,0.7,4,16.0,1,L4,24.0,False,,nvidia,,x86,{}\n"
    'a4-highgpu-8g,us-central1-b,51.0,224,3968.0,8,B200,180.0,False,,nvidia,gcp-dws-calendar-mode gcp-a4,x86,"{""is_'
    'dws_calendar_mode"": true}"\n'
)
LAMBDA = HEADER + "gpu_1x_a100_sxm4,us-east-1,1.99,30,200.0,1,A100,40.0,False,512.0,nvidia,,x86,{}\n"


def zipped(day=(2026, 11, 26), **tables):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in tables.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.csv", date_time=(*day, 3, 0, 0)), text)
    return data.getvalue()


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A local copy of what gpuhunt downloads: for each provider its version, and a zip under it."""
    pytest.importorskip("gpuhunt", reason="the extra 'prices' is not installed")

    def make(**tables):
        for name, table in tables.items():
            folder = tmp_path / "mirror" / name
            (folder / "20261126-7").mkdir(parents=True)
            (folder / "version").write_text("20261126-7\n")
            content = table if isinstance(table, bytes) else zipped(**{name: table})
            (folder / "20261126-7" / "catalog.zip").write_bytes(content)
        monkeypatch.setenv("GPUHUNT_CATALOG_URL", (tmp_path / "mirror").as_uri())
        return fetch_catalog(TODAY)

    return make


def facts(listings):
    return sorted(
        (
            item.provider, item.instance, item.region, item.gpu, item.gpu_memory_gib or 0.0, item.gpu_count,
            item.price_usd_per_hour, item.spot, item.read_on, item.special or "",
        )
        for item in listings
    )  # fmt: skip


EXPECTED = [
    ("aws", "g4ad.xlarge", "us-east-1", "V520", 0.0, 1, 0.3785, False, "2026-11-26", ""),
    ("aws", "g6.xlarge", "us-east-1", "L4", 24.0, 1, 0.35, True, "2026-11-26", ""),
    ("aws", "g6.xlarge", "us-east-1", "L4", 24.0, 1, 0.8048, False, "2026-11-26", ""),
    ("aws", "p4de.24xlarge", "us-east-1", "A100", 80.0, 8, 27.44705, False, "2026-11-26", ""),
    ("gcp", "a4-highgpu-8g", "us-central1", "B200", 180.0, 8, 51.0, False, "2026-11-26", "reserved ahead"),
    ("gcp", "g2-standard-4", "us-central1", "L4", 24.0, 1, 0.7, False, "2026-11-26", ""),
    ("lambda", "gpu_1x_a100_sxm4", "us-east-1", "A100", 40.0, 1, 1.99, False, "2026-11-26", ""),
]


def test_a_folder_a_zip_and_single_files_say_the_same(tmp_path):
    tables = {"aws": AWS, "gcp": GCP, "lambdalabs": LAMBDA}
    for name, text in tables.items():
        (tmp_path / f"{name}.csv").write_text(text)
    assert facts(read_catalog(tmp_path, DAY)) == EXPECTED
    single = [item for name in tables for item in read_catalog(tmp_path / f"{name}.csv", DAY)]
    assert facts(single) == EXPECTED
    file = tmp_path / "catalog.zip"
    file.write_bytes(zipped(**tables))
    assert facts(read_catalog(file)) == EXPECTED
    assert {item.read_on for item in read_catalog(file, date(2026, 1, 2))} == {"2026-01-02"}


def test_gpuhunt_itself_reads_the_same(mirror):
    fetched = mirror(aws=AWS, gcp=GCP, lambdalabs=LAMBDA)
    assert facts(fetched.listings) == EXPECTED
    assert {item.source for item in fetched.listings if item.provider == "aws"} == {"gpuhunt catalog aws 20261126-7"}
    assert any("Failed to load azure catalog" in remark for remark in fetched.remarks)


def test_what_gpuhunt_cannot_load_is_a_remark_and_no_noise(mirror, capfd):
    before = socket.getdefaulttimeout()
    fetched = mirror(aws=AWS + "broken,us-east-1,cheap,4,16.0,1,L4,24.0,False,,nvidia,,x86,{}\n", gcp=b"PK no zip")
    assert {item.provider for item in fetched.listings} == {"aws"}
    assert any(remark.startswith("Failed to load gcp catalog: File is not a zip") for remark in fetched.remarks)
    assert any("malformed row in aws catalog at line 7" in remark for remark in fetched.remarks)
    assert capfd.readouterr() == ("", "")
    logger = logging.getLogger("gpuhunt")
    assert (logger.handlers, logger.propagate, socket.getdefaulttimeout()) == ([], True, before)


def test_nothing_to_be_fetched_is_an_error(mirror):
    with pytest.raises(MelangeError, match=r"cannot fetch the catalog of gpuhunt: .*--catalog"):
        mirror()


def test_without_gpuhunt_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gpuhunt", None)
    with pytest.raises(MissingExtraError, match=r"needs the package gpuhunt; pip install '\.\[prices\]'"):
        fetch_catalog(TODAY)


def test_items_of_the_package_become_listings(monkeypatch):
    item = {
        "instance_name": "gpu_1x_h100", "location": "us-east-1", "price": 3.29, "gpu_count": 1, "gpu_name": None,
        "gpu_memory": None, "spot": False, "flags": [],
    }  # fmt: skip
    items = [SimpleNamespace(**item), SimpleNamespace(**{**item, "gpu_count": 0})]
    loaded = {"lambdalabs": SimpleNamespace(version="latest", items=items)}
    package = SimpleNamespace(
        Catalog=lambda auto_reload: SimpleNamespace(catalog=loaded, load=lambda: None), GPUHuntError=RuntimeError
    )
    monkeypatch.setitem(sys.modules, "gpuhunt", package)
    (listing,) = fetch_catalog(TODAY).listings
    assert (listing.provider, listing.gpu, listing.read_on) == ("lambda", "", "2026-11-27")
    package.Catalog = lambda auto_reload: SimpleNamespace(catalog=None)
    with pytest.raises(InputError, match="too old"):
        fetch_catalog(TODAY)


def test_providers_go_by_the_names_of_price_files():
    assert [our_provider(name) for name in ("LambdaLabs", "lambda", "AWS")] == ["lambda", "lambda", "aws"]


def swapped(old, new):
    return AWS.replace(old, new, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"aws.csv:1: the column instance_name is missing"),
        (swapped("gpu_memory", "memory_of_gpu"), r"aws.csv:1: the column gpu_memory is missing"),
        (swapped("0.8048", "cheap"), r"aws.csv:3: price is 'cheap'; give a number"),
        (swapped(",1,L4", ",-1,L4"), r"aws.csv:3: gpu_count is '-1'"),
        (swapped(",1,L4", ",nan,L4"), r"aws.csv:3: gpu_count is 'nan'"),
        (swapped(",1,L4", ",99999999,L4"), r"aws.csv:3: gpu_count is '99999999'"),
        (swapped("24.0", "24 GB"), r"aws.csv:3: gpu_memory is '24 GB'"),
        (swapped("24.0,False", "24.0,maybe"), r"aws.csv:3: spot is 'maybe'"),
        (swapped("g6.xlarge", " "), r"aws.csv:3: the instance has no name"),
        (swapped("g6.xlarge,", ""), r"aws.csv:3: the row has not as many columns"),
        (AWS + '"', r"aws.csv:6: not a CSV file"),
    ],
)
def test_a_bad_row_is_named(tmp_path, text, message):
    file = tmp_path / "aws.csv"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        read_catalog(file, DAY)


def test_bad_copies_are_one_error(tmp_path):
    file = tmp_path / "catalog.zip"
    good = zipped(aws=AWS)
    for content, message in (
        (good[: len(good) // 2], "damaged zip"),
        (good.replace(AWS.encode()[:9], b""), "damaged zip|aws"),
        (zipped(), "damaged zip|holds no CSV"),
        (zipped(**{"1": AWS}), "says no provider"),
        (zipped(day=(1980, 1, 1), aws=AWS), "when its prices were read; give --read-on"),
        (b"\xff\xfe", "not a text file"),
    ):
        file.write_bytes(content)
        with pytest.raises(InputError, match=message):
            read_catalog(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("readme.txt", "no prices")
    with pytest.raises(InputError, match="the zip holds no CSV"):
        read_catalog(file)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="the folder holds no CSV"):
        read_catalog(tmp_path / "empty")
    with pytest.raises(InputError, match="cannot read it"):
        read_catalog(tmp_path / "absent.zip")
    (tmp_path / "aws.csv").write_text(AWS)
    with pytest.raises(InputError, match="when its prices were read"):
        read_catalog(tmp_path / "aws.csv")


def test_a_zip_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("melange.interop.gpuhunt.MOST_BYTES", 1000)
    file = tmp_path / "catalog.zip"
    file.write_bytes(zipped(aws=AWS + "\n" * 10_000))
    with pytest.raises(InputError, match="it unpacks to more than"):
        read_catalog(file)
