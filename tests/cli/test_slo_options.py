"""Options of an SLO, and what they ask for."""

from __future__ import annotations

import click
import pytest

from melange.cli.main import main
from melange.cli.slo_options import slo_of, slo_options
from melange.cli.solve import solve
from melange.errors import InputError
from melange.slo import Slo


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("99", "99 is not between 0 and 1, as 0.99 or 99% are; did you mean 99%?"),
        ("101%", "101% is not between 0 and 1, as 0.99 or 99% are;"),
        ("nan", "nan is not between 0 and 1"),
        ("most", "'most' is not a share such as 0.99 or 99%"),
    ],
)
def test_a_target_that_is_no_share_is_refused(capsys, written, message):
    with pytest.raises(SystemExit) as ended:
        main(["solve", "arena-120ms-mean", "--attain", written])
    code, said = ended.value.code, capsys.readouterr().err
    assert code == 2
    assert message in said


def test_a_target_may_be_written_in_percent():
    option = next(option for option in solve.params if option.name == "attain")
    with click.Context(solve) as context:
        assert option.process_value(context, "99%") == pytest.approx(0.99)
        assert option.process_value(context, "0.995") == 0.995


def asked(*arguments):
    """The SLO that a command with these options is asked for."""
    found = []

    @click.command()
    @slo_options
    def command(**given):
        found.append(slo_of(given))

    command.main(arguments, standalone_mode=False)
    return found[0]


def test_limits_are_read_in_milliseconds():
    slo = asked(
        "--slo-tpot-ms", "50", "--tpot-definition", "decode", "--slo-ttft-ms", "500", "--slo-e2e-ms", "9000",
        "--attainment", "99%",
    )  # fmt: skip
    assert slo == Slo(tpot_s=0.05, ttft_s=0.5, e2e_s=9.0, tpot_definition="decode", attainment=0.99)
    assert asked() == Slo()


def test_a_limit_may_be_a_percentile_s():
    slo = asked("--slo-tpot-ms", "p95=50", "--tpot-definition", "decode", "--slo-ttft-ms", "p99.9=500")
    assert slo == Slo(tpot_s=0.05, tpot_quantile=0.95, ttft_s=0.5, ttft_quantile=0.999)
    assert asked("--slo-e2e-ms", "p50=9000") == Slo(e2e_s=9.0, e2e_quantile=0.5)
    with pytest.raises(InputError, match="percentiles, each of its own latency, and a joint attainment"):
        asked("--slo-e2e-ms", "p50=9000", "--attainment", "0.9")


@pytest.mark.parametrize("written", ["p95=", "p95", "p100=5", "95=5", "=5", "nan", "p95=nan", "fast"])
def test_what_is_no_limit_is_one_line(written):
    with pytest.raises(
        click.BadParameter, match="neither a limit in ms, such as 500, nor a percentile's, such as p95=500"
    ):
        asked("--slo-ttft-ms", written)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--slo-tpot-ms", "50"], "go together"),
        (["--tpot-definition", "decode"], "go together"),
        (["--attainment", "0.9"], "needs a limit to attain"),
    ],
)
def test_half_an_slo_is_a_usage_error(arguments, message):
    with pytest.raises(click.UsageError, match=message):
        asked(*arguments)
