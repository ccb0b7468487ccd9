"""The diffusion process, proved against closed forms: the ideal denoiser is known for a Gaussian and for a handful of points."""

from itertools import pairwise

import diffusers
import pytest
import torch
from torch import Tensor

from paramgen.diffusion import FLOW_SCHEDULERS, SCHEDULERS, Diffusion, Trajectory
from paramgen.errors import ParamgenError

SCHEDULES = ("linear", "squaredcos_cap_v2")
PREDICTIONS = ("epsilon", "sample", "v_prediction")
PROCESSES = [{"beta_schedule": b, "prediction_type": p} for b in SCHEDULES for p in PREDICTIONS]
FLOW = {"prediction_type": "flow"}
SOLVED = [*((s, d) for s in SCHEDULERS for d in PROCESSES), *((s, FLOW) for s in FLOW_SCHEDULERS)]
POINTS = torch.tensor([[2.0, -1.0, 0.5], [-1.5, 1.0, 3.0], [0.0, 4.0, -2.0]])


def factors(diffusion: Diffusion, t: Tensor, dims: int) -> tuple[Tensor, Tensor]:
    """Factors of data and noise in x_t by their definitions, float64 (B, 1, ...)."""
    t = t.view(-1, *[1] * (dims - 1))
    if diffusion.prediction_type == "flow":
        sigma = (t.double() + 1) / diffusion.num_train_timesteps
        return 1 - sigma, sigma
    abar = diffusion.alphas_cumprod().double()[t]
    return abar.sqrt(), (1 - abar).sqrt()


def answer(diffusion: Diffusion, x_t: Tensor, t: Tensor, x0: Tensor) -> Tensor:
    """What a network that knows x0 (float64) predicts, by the definitions of epsilon, v and the velocity."""
    signal, sigma = factors(diffusion, t, x_t.dim())
    eps = (x_t.double() - signal * x0) / sigma
    kinds = {"epsilon": eps, "sample": x0, "v_prediction": signal * eps - sigma * x0, "flow": eps - x0}
    return kinds[diffusion.prediction_type].float()


def ideal_for_points(diffusion: Diffusion):
    """E[x0 | x_t] for data uniform on POINTS: a softmax over the points."""

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        signal, sigma = factors(diffusion, t, 3)
        distance = (x_t.double()[:, None] - signal * POINTS.double()).square().sum(-1)  # (B, points)
        weights = (-distance / (2 * sigma[..., 0].square())).softmax(-1)
        return answer(diffusion, x_t, t, weights @ POINTS.double())

    return denoise


def ideal_for_gaussian(diffusion: Diffusion, mean: float, std: float):
    """E[x0 | x_t] for data N(mean, std^2)."""

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        signal, sigma = factors(diffusion, t, x_t.dim())
        gain = signal * std**2 / (signal.square() * std**2 + sigma.square())
        return answer(diffusion, x_t, t, mean + gain * (x_t.double() - signal * mean))

    return denoise


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("process", [*PROCESSES, FLOW])
def test_target_and_x_t_are_the_hand_formulas(process):
    diffusion = Diffusion(**process)
    x0 = torch.randn(64, 5, 3, generator=seeded())
    x_t, t, eps, target = diffusion.noise(x0, generator=seeded(1))
    signal, sigma = factors(diffusion, t, 3)
    torch.testing.assert_close(x_t.double(), signal * x0 + sigma * eps, rtol=0, atol=1e-6)
    by_hand = {"epsilon": eps, "sample": x0, "v_prediction": signal * eps - sigma * x0, "flow": eps - x0}
    torch.testing.assert_close(target.double(), by_hand[process["prediction_type"]].double(), rtol=0, atol=1e-6)


def test_noising_equals_diffusers():
    theirs = diffusers.DDPMScheduler(1000, 1e-4, 2e-2, "linear")
    x0 = torch.randn(32, 7, generator=seeded())
    x_t, t, eps, _ = Diffusion().noise(x0, generator=seeded(1))
    torch.testing.assert_close(x_t, theirs.add_noise(x0, eps, t), rtol=0, atol=1e-6)


@pytest.mark.parametrize("process", [{}, {**FLOW, "timestep_sampling": "uniform"}])
def test_steps_are_uniform_over_all_levels_and_differ_between_rows(process):
    t = Diffusion(num_train_timesteps=10, **process).noise(torch.zeros(5000, 1), generator=seeded()).t
    counts = t.bincount(minlength=10)
    assert len(counts) == 10
    assert (counts - 500).abs().max() < 110  # five standard deviations of a binomial


@pytest.mark.parametrize("process", [FLOW, {"timestep_sampling": "logit_normal"}])
def test_logit_normal_steps_are_those_of_a_sigmoid_of_normal_noise(process):
    diffusion = Diffusion(num_train_timesteps=10, **process)
    counts = diffusion.noise(torch.zeros(5000, 1), generator=seeded()).t.bincount(minlength=10)
    edges = torch.linspace(0, 1, 11).logit()
    expected = 5000 * torch.special.ndtr(edges).diff()
    assert ((counts - expected).abs() < 5 * expected.sqrt() + 1).all()


@pytest.mark.parametrize("process", [*PROCESSES, FLOW])
def test_predict_gives_back_the_data_and_their_share_of_the_variance(process):
    diffusion, x0 = Diffusion(**process), torch.randn(64, 5, 3, generator=seeded())
    asked = []

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        asked.append(t)
        return answer(diffusion, x_t, t, x0.double())

    found = diffusion.predict(denoise, x0, generator=seeded(1))
    signal, sigma = factors(diffusion, asked[0], 1)
    torch.testing.assert_close(found.x0, x0, rtol=0, atol=1e-3)  # of epsilon, which is divided by .006 at the end
    share = signal.square() / (signal.square() + sigma.square())
    torch.testing.assert_close(found.abar.double(), share, rtol=0, atol=1e-6)
    assert (diffusion.predict(denoise, x0, from_noise=True).abar < 1e-4).all()
    assert (asked[1] == 999).all()


def test_cosine_ends_where_linear_ends_and_keeps_falling():
    abar = Diffusion(beta_schedule="squaredcos_cap_v2").alphas_cumprod()
    theirs = diffusers.DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2").alphas_cumprod
    assert (abar.diff() < 0).all()
    assert abar[-1] == pytest.approx(Diffusion().alphas_cumprod()[-1].item(), rel=0.1)
    assert (abar.sqrt() - theirs.sqrt()).abs().max() < 0.0061


@pytest.mark.parametrize(("scheduler", "process"), SOLVED)
def test_scheduler_recovers_points_with_the_ideal_denoiser(scheduler, process):
    diffusion = Diffusion(**process)
    x = diffusion.sample(
        ideal_for_points(diffusion), (200, 3), scheduler=scheduler, num_inference_steps=50, generator=seeded()
    )
    distance, nearest = torch.cdist(x, POINTS).min(1)
    assert (distance < 0.02).float().mean() > 0.98
    assert (nearest.bincount(minlength=3) > 40).all()  # no point is lost


@pytest.mark.parametrize(
    ("scheduler", "steps", "process"),
    [
        *((s, n, d) for s, n in (("DDPM", 1000), ("DDIM", 200), ("DPMSolverMultistep", 30)) for d in PROCESSES),
        ("FlowMatchEulerDiscrete", 200, FLOW),
        ("FlowMatchHeunDiscrete", 50, FLOW),
    ],
)
def test_scheduler_recovers_a_gaussian_with_the_ideal_denoiser(scheduler, steps, process):
    diffusion = Diffusion(**process)
    denoise = ideal_for_gaussian(diffusion, mean=1.5, std=0.4)
    x = diffusion.sample(denoise, (4000, 1), scheduler=scheduler, num_inference_steps=steps, generator=seeded())
    assert x.mean().item() == pytest.approx(1.5, abs=0.025)
    assert x.std().item() == pytest.approx(0.4, abs=0.02)


@pytest.mark.parametrize("scheduler", [*SCHEDULERS, *FLOW_SCHEDULERS])
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 60, 333])
def test_any_number_of_steps_ends_at_the_mean_of_a_narrow_gaussian(scheduler, steps):
    diffusion = Diffusion(prediction_type="v_prediction" if scheduler in SCHEDULERS else "flow")
    denoise = ideal_for_gaussian(diffusion, mean=-2.0, std=1e-3)
    x = diffusion.sample(denoise, (8, 2), scheduler=scheduler, num_inference_steps=steps, generator=seeded())
    assert (x + 2).abs().max() < 0.02


def test_an_euler_step_of_flow_is_the_velocity_times_the_fall_in_noise():
    diffusion = Diffusion(prediction_type="flow")
    ours = diffusion.sample(
        network, (5, 4), scheduler="FlowMatchEulerDiscrete", num_inference_steps=4, temperature=0.7, generator=seeded()
    )
    x = 0.7 * torch.randn(5, 4, generator=seeded())
    for t in (999, 749, 499, 249):
        x = x - 0.25 * network(x, torch.tensor([t]))
    torch.testing.assert_close(ours, x, rtol=0, atol=1e-6)


def test_straight_paths_need_one_step():
    diffusion = Diffusion(prediction_type="flow")
    denoise = ideal_for_gaussian(diffusion, mean=3.0, std=1e-6)
    one = diffusion.sample(denoise, (8, 2), scheduler="FlowMatchEulerDiscrete", num_inference_steps=1)
    assert (one - 3).abs().max() < 1e-4


@pytest.mark.parametrize("scheduler", ["DDIM", "DDPM", "DPMSolverMultistep", "FlowMatchEulerDiscrete"])
@pytest.mark.parametrize("steps", [1, 7, 60, 600, 999, 1000])
def test_denoiser_is_asked_at_every_chosen_level_once_from_the_noisiest(steps, scheduler):
    asked = []

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        asked.append(t.item())
        return x_t

    _solved(scheduler).sample(denoise, (1, 1), scheduler=scheduler, num_inference_steps=steps)
    assert asked[0] == 999
    assert len(asked) == steps
    gaps = [a - b for a, b in pairwise([*asked, -1])]
    assert max(gaps) - min(gaps) <= 1  # evenly spread, down to the clean end
    assert min(gaps) >= 1


def _solved(scheduler: str) -> Diffusion:
    """A diffusion that a scheduler solves."""
    return Diffusion(prediction_type="flow" if scheduler in FLOW_SCHEDULERS else "epsilon")


def network(x_t: Tensor, t: Tensor) -> Tensor:
    """Any smooth function of both arguments."""
    return torch.sin(3 * x_t + t.view(-1, 1) / 200) * 0.7


@pytest.mark.parametrize("beta_schedule", SCHEDULES)
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("steps", [60, 1000])
def test_ddpm_equals_ancestral_sampling_written_by_hand(steps, temperature, beta_schedule):
    diffusion = Diffusion(beta_schedule=beta_schedule, prediction_type="v_prediction")
    ours = diffusion.sample(
        network, (5, 4), scheduler="DDPM", num_inference_steps=steps, temperature=temperature, generator=seeded()
    )
    abar = diffusion.alphas_cumprod().double()
    g = seeded()
    levels = [round(1000 - i * 1000 / steps) - 1 for i in range(steps)]
    x = temperature * torch.randn(5, 4, generator=g).double()
    for t, before in pairwise([*levels, None]):
        a, a_prev = abar[t], abar[before] if before is not None else torch.tensor(1.0).double()
        v = network(x.float(), torch.tensor([t])).double()
        x0 = a.sqrt() * x - (1 - a).sqrt() * v
        alpha = a / a_prev
        mean = (a_prev.sqrt() * (1 - alpha) * x0 + alpha.sqrt() * (1 - a_prev) * x) / (1 - a)
        std = ((1 - a_prev) / (1 - a) * (1 - alpha)).sqrt()
        x = mean + temperature * std * torch.randn(5, 4, generator=g).double()
    torch.testing.assert_close(ours.double(), x, rtol=0, atol=1e-4)  # a float32 chain of up to 1,000 steps


def test_one_ddpm_step_equals_diffusers_to_1e_6():
    theirs = diffusers.DDPMScheduler(1000, 1e-4, 2e-2, "linear", clip_sample=False)
    theirs.set_timesteps(1000)
    theirs.alphas_cumprod = theirs.alphas_cumprod.double()  # in float32 its two coefficients are off by 1e-4 at t = 1
    x = torch.randn(5, 4, generator=seeded())
    ours, *_ = Diffusion()._solver("DDPM", torch.arange(999, -1, -1))
    for t in (999, 500, 1, 0):
        eps, noise = network(x, torch.tensor([t])), torch.randn(5, 4, generator=seeded(t))
        step = ours.step(eps, t, x, eta=1.0, variance_noise=noise).prev_sample
        torch.testing.assert_close(step, theirs.step(eps, t, x, generator=seeded(t)).prev_sample, rtol=0, atol=1e-6)


def test_samples_repeat_with_the_generator_and_calls_leave_nothing_behind():
    for name in (*SCHEDULERS, *FLOW_SCHEDULERS):
        first, second = (_solved(name).sample(network, (3, 4), scheduler=name, generator=seeded(5)) for _ in range(2))
        assert torch.equal(first, second)
        assert torch.isfinite(first).all()


@pytest.mark.parametrize("scheduler", ["DDPM", "DDIM", "DPMSolverMultistep", "EulerDiscrete"])
def test_lower_temperature_narrows_a_gaussian(scheduler):
    diffusion = Diffusion(prediction_type="sample")
    denoise = ideal_for_gaussian(diffusion, mean=0.0, std=1.0)
    wide, narrow = (
        diffusion.sample(denoise, (3000, 1), scheduler=scheduler, temperature=t, generator=seeded()).std().item()
        for t in (1.0, 0.5)
    )
    assert narrow == pytest.approx(0.5 * wide, rel=0.02)  # the ideal denoiser of a unit Gaussian is linear


def test_masked_loss_ignores_padding():
    diffusion, mask = Diffusion(), torch.tensor([[True, True, False]])
    x0 = torch.randn(16, 3, generator=seeded())
    spoiled = x0.masked_fill(~mask, 1e6)
    losses = [diffusion.loss(network, x, mask, generator=seeded(1)) for x in (x0, spoiled)]
    assert losses[0] == losses[1]
    by_hand = (network(*diffusion.noise(x0, generator=seeded(1))[:2]) - diffusion.noise(x0, generator=seeded(1)).eps)[
        :, :2
    ]
    assert losses[0].item() == pytest.approx(by_hand.square().mean().item(), rel=1e-6)


def test_bf16_network_gets_a_float32_loss_and_a_float32_sample():
    layer = torch.nn.Linear(4, 4)
    x0 = torch.randn(512, 4, generator=seeded())
    plain = Diffusion().loss(lambda x, t: layer(x), x0, generator=seeded(1))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = Diffusion().loss(lambda x, t: layer(x), x0, generator=seeded(1))
        x = Diffusion().sample(lambda x, t: layer(x), (3, 4))
    assert mixed.dtype == x.dtype == torch.float32
    assert mixed.item() == pytest.approx(plain.item(), rel=0.01)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"scheduler": "DIMM"}, "Did you mean 'D"),
        ({"num_inference_steps": 1001}, "expected 1 to num_train_timesteps = 1000"),
        ({"num_inference_steps": 0}, "expected 1"),
        ({"temperature": -1.0}, "expected 0 or more"),
        ({"temperature": float("nan")}, "expected 0 or more"),
        ({"scheduler": "EulerAncestralDiscrete", "temperature": 0.5}, "cannot scale"),
        (
            {"scheduler": "FlowMatchEulerDiscrete"},
            "FlowMatchEulerDiscrete does not solve prediction_type epsilon. Available: DDPM",
        ),
    ],
)
def test_impossible_sampling_is_refused_in_one_line(change, says):
    with pytest.raises(ParamgenError, match=says):
        Diffusion().sample(network, (1, 2), **change)


@pytest.mark.parametrize("scheduler", ["DDIM", "DPMSolverMultistepScheduler"])
def test_flow_names_the_schedulers_that_solve_it(scheduler):
    with pytest.raises(
        ParamgenError, match=r"does not solve prediction_type flow. Available: FlowMatchEulerDiscrete, Fl"
    ):
        Diffusion(prediction_type="flow").sample(network, (1, 2), scheduler=scheduler)
    with pytest.raises(ParamgenError, match="Did you mean 'FlowMatchHeunDiscrete'"):
        Diffusion(prediction_type="flow").check("FlowMatchHeun", 5)


@pytest.mark.parametrize(
    "setting",
    [
        {"beta_schedule": "cosine"},
        {"prediction_type": "eps"},
        {"timestep_sampling": "cosine"},
        {"num_train_timesteps": 0},
    ],
)
def test_unknown_settings_are_refused(setting):
    with pytest.raises(ParamgenError, match=next(iter(setting))):
        Diffusion(**setting)


def test_scheduler_may_carry_its_class_name():
    a, b = (Diffusion().sample(network, (2, 2), scheduler=s, generator=seeded()) for s in ("DDIM", "DDIMScheduler"))
    assert torch.equal(a, b)


@pytest.mark.parametrize("steps", [1, 4, 10, 50])
@pytest.mark.parametrize("scheduler", ["DDPM", "EulerDiscrete", "HeunDiscrete", *FLOW_SCHEDULERS])
def test_a_trajectory_goes_from_noise_to_the_sample_in_a_few_states(scheduler, steps):
    kind = "flow" if scheduler in FLOW_SCHEDULERS else "epsilon"
    diffusion, trajectory, seen = Diffusion(100, prediction_type=kind), Trajectory(rows=300), []

    def denoise(x, t):  # the ideal one, of data that are all 2: noise is what remains
        seen.append(x.clone())
        return answer(diffusion, x, t, torch.full_like(x, 2).double())

    torch.manual_seed(0)
    options = {"scheduler": scheduler, "num_inference_steps": steps}
    drawn = diffusion.sample(denoise, (400, 3), **options, callback=trajectory)
    torch.manual_seed(0)
    assert torch.equal(drawn, diffusion.sample(denoise, (400, 3), **options))  # watching changes nothing
    states = torch.stack(trajectory.states)  # (S, 300, 3)
    assert len(states) == min(len(seen) // 2 + 1, 10)  # both runs were seen
    assert torch.equal(states[0], seen[0][:300])
    assert torch.equal(states[-1], drawn[:300])
    off = (states - 2).square().mean((1, 2))
    assert off[0] > 1
    assert off[-1] < 1e-3
    assert (off.diff() < 0.5).all()
