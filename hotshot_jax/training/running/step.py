"""One training step: loss, gradients, clipping, optimiser and moving average, in one program."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hotshot_jax.compile_effort import DEFAULT_EFFORT, effort_options
from hotshot_jax.conditioning.text.prompt import encode_tokens
from hotshot_jax.schedulers.base import Scheduler
from hotshot_jax.training.consistency import ConsistencyConfig, consistency_loss, draw_consistency
from hotshot_jax.training.layer_groups import factors_by_name
from hotshot_jax.training.loss import Arrays, Draws, LossConfig, diffusion_loss, draw
from hotshot_jax.training.optimizer import (
    OptimizerConfig,
    Schedule,
    clip_by_global_norm,
    make_optimizer,
    weights_to_show,
)
from hotshot_jax.training.rematerialisation import rematerialise
from hotshot_jax.training.scaling import kept_still, without
from hotshot_jax.training.trainees.lora import LoraTrainee
from hotshot_jax.training.trainees.trainee import Parameters, Trainee


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that training changes.

    Attributes:
        step: updates done, int32.
        key: from which the random numbers of every step follow, together with `step`.
        trained: parameters that train, float32.
        optimizer: state of the optimiser.
        average: moving average of `trained`; None without one.
        gathered: gradients added up so far within an update; None where an update has one batch.
    """

    step: jax.Array
    key: jax.Array
    trained: Parameters
    optimizer: Any
    average: Parameters | None
    gathered: Parameters | None


@dataclasses.dataclass(frozen=True)
class StepConfig:
    """How a step is computed.

    Attributes:
        loss: what is minimised; a `ConsistencyConfig` is for a LoRA alone.
        optimizer: which it is, and its numbers.
        accumulation_steps: batches an update.
        ema_decay: of the moving average; None for none.
        text_dropout: fraction of samples that are trained without their prompt.
        rematerialisation: what is computed again instead of being kept; see `rematerialise`.
        scaling_factor: of the VAE's latents.
        zero_nan_latents: put zeros in place of latents that are not numbers.
    """

    loss: LossConfig | ConsistencyConfig = dataclasses.field(default_factory=LossConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    accumulation_steps: int = 1
    ema_decay: float | None = None
    text_dropout: float = 0.0
    rematerialisation: str = "none"
    scaling_factor: float = 1.0
    zero_nan_latents: bool = False


class Trainer:
    """The programs of a training run.

    Args:
        division: what trains, and the model that it is part of.
        scheduler: noise schedule and what the model predicts.
        config: how a step is computed.
        schedule: learning rate by step.

    Raises:
        UsageError: learning rates of groups are asked for that have nothing to train.
    """

    def __init__(
        self, division: Trainee, scheduler: Scheduler, config: StepConfig, schedule: Schedule
    ):
        self.division = division
        self.scheduler = scheduler
        self.config = config
        self.schedule = schedule
        groups = config.optimizer.learning_rate_factors
        self.factors = factors_by_name(groups, division.trained) if groups else {}
        self.optimizer = make_optimizer(config.optimizer, schedule, self.factors)

    def init(self, trained: Parameters, seed: int) -> TrainState:
        """The state before the first step.

        Args:
            trained: float32 parameters; moments lie where they do.
            seed: of all random numbers.
        """

        def zeros(parameters: Parameters) -> Parameters:
            return {name: jnp.zeros_like(leaf) for name, leaf in parameters.items()}

        config = self.config
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            key=jax.random.key_data(jax.random.key(seed)),
            trained=trained,
            # Not under jit: that would lose where the parameters lie.
            optimizer=self.optimizer.init(trained),
            average=None
            if config.ema_decay is None
            else {name: jnp.array(leaf, copy=True) for name, leaf in trained.items()},
            gathered=zeros(trained) if config.accumulation_steps > 1 else None,
        )

    def loss(
        self,
        trained: Parameters,
        frozen: Parameters,
        batch: Arrays,
        key: jax.Array,
        average: Parameters | None = None,
    ) -> tuple[jax.Array, dict[str, Any]]:
        """The loss of a batch, as `diffusion_loss` gives it.

        Args:
            trained: parameters that train.
            frozen: those that do not.
            batch: see `step`.
            key: of its random numbers.
            average: of what trains, for distillation that aims at it; by default `trained`.
        """
        latent_key, noise_key, text_key = jax.random.split(key, 3)
        mean = batch["mean"].astype(jnp.float32)
        picked = jax.random.normal(latent_key, mean.shape, jnp.float32)
        latents = mean + batch["deviation"].astype(jnp.float32) * picked
        if self.config.zero_nan_latents:
            latents = jnp.where(jnp.isnan(latents), 0.0, latents)
        latents = latents * self.config.scaling_factor
        text = self._drop_text(self._with_text(trained, frozen, batch), text_key)
        config = self.config.loss
        if isinstance(config, ConsistencyConfig):
            aim = trained if average is None or config.target != "ema" else average
            return self._distil(config, trained, aim, frozen, latents, text, noise_key)
        draws = draw(noise_key, latents.shape, config, self.scheduler.num_train_timesteps)
        return self.loss_of(trained, frozen, latents, text, draws)

    def loss_of(
        self,
        trained: Parameters,
        frozen: Parameters,
        latents: jax.Array,
        text: Arrays,
        draws: Draws,
    ) -> tuple[jax.Array, dict[str, Any]]:
        """The loss of scaled latents with given random numbers; see `diffusion_loss`."""
        assert isinstance(self.config.loss, LossConfig)
        model = self._model(trained, frozen)
        return diffusion_loss(model, self.scheduler, self.config.loss, latents, text, draws)

    def _model(self, trained: Parameters, frozen: Parameters) -> Any:
        model = self.division.merge(trained, frozen)
        rematerialise(model, self.config.rematerialisation)
        return model

    def _distil(
        self,
        config: ConsistencyConfig,
        trained: Parameters,
        aim: Parameters,
        frozen: Parameters,
        latents: jax.Array,
        text: Arrays,
        key: jax.Array,
    ) -> tuple[jax.Array, dict[str, Any]]:
        assert isinstance(self.division, LoraTrainee)
        return consistency_loss(
            self._model(trained, frozen),
            self.division.without_factors(frozen),
            self.division.merge(jax.lax.stop_gradient(aim), frozen),
            self.scheduler,
            config,
            latents,
            text,
            draw_consistency(key, latents.shape, config),
        )

    def step(
        self, state: TrainState, frozen: Parameters, batch: Arrays, micro: jax.Array, *, last: bool
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """Trains on one batch; to be compiled, with `state` donated.

        Args:
            state: where training stands.
            frozen: parameters that do not train.
            batch: `mean` and `deviation` of the latents `[batch, frames, height, width, channels]`,
                `hidden` `[batch, tokens, channels]`, `pooled` `[batch, text_channels]`, `time_ids`
                `[batch, 6]`, and `empty_hidden`, `empty_pooled`, which stand for no prompt; where a
                ControlNet trains also `control`, uint8 `[batch, frames, height, width, 3]`. Where
                text encoders train, token ids `ids` and `ids_2` `[batch, tokens]` in place of
                texts, and `empty_ids`, `empty_ids_2` unless zeros stand for no prompt.
            micro: number of the batch within the update.
            last: whether it is the last one of the update.

        Returns:
            The new state, and `loss`, `grad_norm` (before clipping), `learning_rate`,
            `quarter_sums` and `quarter_counts`.
        """
        key = jax.random.wrap_key_data(state.key)
        key = jax.random.fold_in(jax.random.fold_in(key, state.step), micro)
        gradient = jax.value_and_grad(self.loss, has_aux=True)
        (loss, metrics), gradients = gradient(state.trained, frozen, batch, key, state.average)
        return self.apply(state, gradients, {"loss": loss, **metrics}, last=last)

    def apply(
        self,
        state: TrainState,
        gradients: Parameters,
        metrics: dict[str, jax.Array],
        *,
        last: bool = True,
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """Takes in the gradients of a batch, and updates the parameters after the last one."""
        count = self.config.accumulation_steps
        # What stands still counts in no norm, and the compiler drops what finds its gradients.
        gradients = without(gradients, self.factors)
        if state.gathered is not None:
            gradients = {
                name: state.gathered[name] + leaf / count for name, leaf in gradients.items()
            }
            if not last:
                return dataclasses.replace(state, gathered=gradients), metrics
        gradients, norm = clip_by_global_norm(gradients, self.config.optimizer.max_grad_norm)
        updates, optimizer = self.optimizer.update(gradients, state.optimizer, state.trained)
        trained = optax.apply_updates(state.trained, updates)
        metrics = {**metrics, "grad_norm": norm, "learning_rate": self.schedule(state.step)}
        updated = TrainState(
            step=state.step + 1,
            key=state.key,
            trained=trained,
            optimizer=optimizer,
            average=self._averaged(state.average, trained),
            gathered=None if state.gathered is None else jax.tree.map(jnp.zeros_like, gradients),
        )
        return updated, metrics

    def result(self, state: TrainState) -> Parameters:
        """What to validate and to export: an average if there is one, else what trains."""
        if state.average is not None:
            return state.average
        return kept_still(
            weights_to_show(state.trained, state.optimizer), state.trained, self.factors
        )

    def _averaged(self, average: Parameters | None, trained: Parameters) -> Parameters | None:
        decay = self.config.ema_decay
        if average is None or decay is None:
            return None
        return {name: leaf + (1 - decay) * (trained[name] - leaf) for name, leaf in average.items()}

    def _with_text(self, trained: Parameters, frozen: Parameters, batch: Arrays) -> Arrays:
        """The batch with its texts, where those are encoded by what trains."""
        division = self.division
        if not (isinstance(division, LoraTrainee) and division.encoders):
            return batch
        encoders = division.text_encoders(trained, frozen)
        for encoder in encoders:
            rematerialise(encoder, self.config.rematerialisation)
        hidden, pooled = encode_tokens(*encoders, batch["ids"], batch["ids_2"])
        texts = {**batch, "hidden": hidden, "pooled": pooled}
        if self.config.text_dropout:
            empty = jnp.zeros_like(hidden[:1]), jnp.zeros_like(pooled[:1])
            if "empty_ids" in batch:
                empty = encode_tokens(*encoders, batch["empty_ids"], batch["empty_ids_2"])
            texts["empty_hidden"], texts["empty_pooled"] = empty
        return texts

    def _drop_text(self, batch: Arrays, key: jax.Array) -> Arrays:
        if not self.config.text_dropout:
            return batch
        kept = jax.random.bernoulli(key, 1 - self.config.text_dropout, batch["pooled"].shape[:1])
        return {
            **batch,
            "hidden": jnp.where(kept[:, None, None], batch["hidden"], batch["empty_hidden"]),
            "pooled": jnp.where(kept[:, None], batch["pooled"], batch["empty_pooled"]),
        }


def on_mesh(state: TrainState, mesh: Mesh) -> TrainState:
    """Copies what lies on one device, counters and the like, to all devices of a mesh."""

    def placed(leaf: jax.Array) -> jax.Array:
        return (
            leaf if isinstance(leaf.sharding, NamedSharding) else jax.device_put(leaf, everywhere)
        )

    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(placed, state)


def trace_step(
    trainer: Trainer, state: TrainState, frozen: Parameters, batch: Arrays, *, last: bool = True
) -> Any:
    """Traces `Trainer.step` for arrays or shapes like these, with the state donated.

    The state comes back where it was: without being told so, the compiler may move parts of it.

    Returns:
        An object of `jax.stages.Traced`.
    """
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)

    def step(state: TrainState, frozen: Parameters, batch: Arrays, micro: jax.Array) -> Any:
        return trainer.step(state, frozen, batch, micro, last=last)

    jitted = jax.jit(step, donate_argnums=0, out_shardings=(shardings, None))
    return jitted.trace(state, frozen, batch, jax.ShapeDtypeStruct((), jnp.int32))


def compiler_options(platform: str, effort: str = DEFAULT_EFFORT) -> dict[str, str | bool]:
    """What the compiler has to be told about a training step.

    With weights split over devices (`fsdp`), the TPU compiler's partitioner multiplies shard by
    shard as they arrive instead of gathering a layer's weights first. For layers of this size that
    is 1.4 times the operations and twice the memory traffic (`docs/performance.md`); the threshold
    turns it off.

    Args:
        platform: of the devices, "tpu", "gpu" or "cpu".
        effort: see `effort_options`.

    Raises:
        UsageError: the platform's compiler does not know this effort.
    """
    options = effort_options(platform, effort)
    if platform == "tpu":
        options["xla_jf_spmd_threshold_for_windowed_einsum_mib"] = "1000000"
    return options


def compile_step(traced: Any, platform: str, effort: str = DEFAULT_EFFORT) -> Any:
    """Compiles what `trace_step` has traced.

    Args:
        traced: an object of `jax.stages.Traced`.
        platform: see `compiler_options`.
        effort: see there.

    Returns:
        An object of `jax.stages.Compiled`.
    """
    return traced.lower().compile(compiler_options(platform, effort))
