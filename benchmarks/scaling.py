"""What fine-tuning would take on more chips than were ever tried: docs/scaling.md by formula.

    python -m benchmarks.scaling --flops 45e12 --train temporal
    python -m benchmarks.scaling --train unet --count

Every figure is modelled. `--count` counts the operations of a training step as it is traced at full
size, which takes a minute of processor time; `--flops` takes them from an earlier run. The rest are
published peaks and the assumptions that the flags name.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence

from benchmarks.compile.topologies import CHIPS, Chip, without_tpu

# Of the published UNet.
TEMPORAL_PARAMETERS = 236_779_200
SPATIAL_PARAMETERS = 2_567_463_684
# Mean and deviation of the latents of 8 frames of 512 x 512 (float32), text (bfloat16) and pooled
# text, as cached.
SAMPLE_BYTES = 2 * 4 * 8 * 64 * 64 * 4 + 2 * 77 * 2048 + 4 * 1280
CHIP_COUNTS = (8, 64, 256, 1024)


@dataclasses.dataclass(frozen=True)
class Job:
    """What is trained.

    Attributes:
        trained: parameters that train, float32 with two float32 moments.
        frozen: the others, bfloat16.
        flops: operations of a sample's forward and backward pass.
    """

    trained: int
    frozen: int
    flops: float


@dataclasses.dataclass(frozen=True)
class Assumptions:
    """What no compiler knows.

    Attributes:
        utilisation: share of the chip's peak that a step reaches.
        chips_of_host: chips that one host feeds.
        chips_of_slice: chips joined by fast links; more are several slices, joined by a network.
        host_network: bytes a second out of a host.
        host_storage: bytes a second from a host to storage.
        chip_hour: price of a chip for an hour, in dollars.
    """

    utilisation: float = 0.4
    chips_of_host: int = 4
    chips_of_slice: int = 256
    host_network: float = 12.5e9
    host_storage: float = 0.2e9
    chip_hour: float = 1.2


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What follows, all of it modelled.

    Attributes:
        compute_seconds: of a step with one sample a chip.
        gather_seconds: of what a chip sends over the fast links in a step; hidden while shorter.
        network_seconds: of what a host sends over the network in a step; likewise.
        samples_per_second: of all chips.
        input_bytes_per_second: of a host, cached latents and text.
        checkpoint_bytes: weights that train and their moments.
        checkpoint_seconds: until they are stored, every host writing its part.
        state_bytes: weights, moments and gradients on one chip.
        cost_per_million: dollars.
    """

    compute_seconds: float
    gather_seconds: float
    network_seconds: float
    samples_per_second: float
    input_bytes_per_second: float
    checkpoint_bytes: int
    checkpoint_seconds: float
    state_bytes: float
    cost_per_million: float


def estimate(job: Job, chip: Chip, chips: int, assumed: Assumptions) -> Estimate:
    """Models a run with the mesh that `--mesh auto` picks: `fsdp` within a slice, and `data`.

    Args:
        job: what is trained, one sample on each chip in a step.
        chip: the kind of chip.
        chips: how many.
        assumed: what no compiler knows.
    """
    # Only now, since it starts JAX.
    from hotshot_jax.parallel.mesh import MeshConfig

    slices = max(1, chips // assumed.chips_of_slice)
    mesh = MeshConfig.auto("train", chips, slices=slices)
    replicas = mesh.data // slices
    hosts = max(1, chips // assumed.chips_of_host)
    weights, gradients = 4 * job.trained + 2 * job.frozen, 4 * job.trained
    # Weights are gathered on the way there and on the way back, gradients are reduced once: each
    # chip's part of them then also in a ring with the other chips of a slice that hold this part.
    sent = (mesh.fsdp - 1) / mesh.fsdp * (2 * weights + gradients)
    sent += 2 * (replicas - 1) / replicas * gradients / mesh.fsdp
    # A ring between the slices, each host with its chips' part of the gradients.
    crossing = 2 * (slices - 1) / slices * gradients / (hosts / slices)
    compute = job.flops / (assumed.utilisation * chip.flops)
    gather, network = sent / chip.ici_bandwidth, crossing / assumed.host_network
    step = max(compute, gather) + network
    rate = chips / step
    checkpoint = 12 * job.trained
    return Estimate(
        compute_seconds=compute,
        gather_seconds=gather,
        network_seconds=network,
        samples_per_second=rate,
        input_bytes_per_second=rate / hosts * SAMPLE_BYTES,
        checkpoint_bytes=checkpoint,
        checkpoint_seconds=checkpoint / (hosts * assumed.host_storage),
        state_bytes=(16 * job.trained + 2 * job.frozen) / mesh.fsdp,
        cost_per_million=1e6 / rate / 3600 * chips * assumed.chip_hour,
    )


def count_flops(train: str, rematerialisation: str) -> float:
    """Operations of one sample of 8 frames of 512 x 512, in the step as it is traced."""
    from benchmarks.compile import steps as compiled_steps
    from benchmarks.compile.abstract_arrays import Size
    from benchmarks.compile.hlo_costs import program_costs

    size = Size("full", 512, 512, 8, trained=train, rematerialisation=rematerialisation)
    return program_costs(compiled_steps.train(size, None).lower().as_text("hlo")).flops


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--train", choices=("temporal", "unet"), default="temporal")
    parser.add_argument("--remat", choices=("none", "blocks", "dots", "full"), default="blocks")
    parser.add_argument("--chip", choices=tuple(CHIPS), default="v5e")
    operations = parser.add_mutually_exclusive_group(required=True)
    operations.add_argument("--flops", type=float, help="operations of a sample")
    operations.add_argument("--count", action="store_true", help="count them")
    for field in dataclasses.fields(Assumptions):
        parser.add_argument(
            f"--{field.name}", type=type(field.default), default=field.default, metavar="NUMBER"
        )
    options = vars(parser.parse_args(arguments))
    assumed = Assumptions(
        **{field.name: options[field.name] for field in dataclasses.fields(Assumptions)}
    )
    without_tpu()
    flops = options["flops"] or count_flops(options["train"], options["remat"])
    whole = options["train"] == "unet"
    job = Job(
        TEMPORAL_PARAMETERS + whole * SPATIAL_PARAMETERS, (not whole) * SPATIAL_PARAMETERS, flops
    )
    print(f"{flops / 1e12:.1f} TFLOP a sample, {SAMPLE_BYTES / 2**20:.2f} MiB a cached sample\n")
    print(
        "| chips | step | gathering | network | samples/s | input a host | state a chip | "
        "checkpoint | stored in | a million clips |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    for chips in CHIP_COUNTS:
        print(_row(chips, estimate(job, CHIPS[options["chip"]], chips, assumed)))
    return 0


def _row(chips: int, found: Estimate) -> str:
    cells = [
        str(chips),
        f"{1e3 * found.compute_seconds:.0f} ms",
        f"{1e3 * found.gather_seconds:.0f} ms",
        f"{1e3 * found.network_seconds:.1f} ms",
        f"{found.samples_per_second:.0f}",
        f"{found.input_bytes_per_second / 1e6:.1f} MB/s",
        f"{found.state_bytes / 2**30:.2f} GiB",
        f"{found.checkpoint_bytes / 1e9:.1f} GB",
        f"{found.checkpoint_seconds:.1f} s",
        f"${found.cost_per_million:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
