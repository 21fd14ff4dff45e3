"""The OGBench stack, 512x4 GELU networks, critics layer-normed after the activation, mean of two, and its domains.

Source of every number unless said otherwise: seohongpark/fql (configs in agents/*.py, README commands) and the tuned
coefficients of "Flow Q-Learning" (arXiv:2502.02538), tables 6 and 7. There 1M offline updates, then 1M online steps.

Coefficients as our recipes define them:
  IQL     beta = alpha there (inverse temperature), expectile .9
  ReBRAC  extraction.alpha = alpha_actor with the value divided by mean |Q|, critic.penalty = alpha_critic
  FQL     extraction.alpha = alpha on the raw value (normalise = False); imitation is a mean over dimensions in both
Beside each domain NAME stand two of our own conversions, for use at another scale of rewards or as starting points:
  NAME-normalised   FQL with the value divided by mean |Q|, alpha / bound
  NAME-raw          ReBRAC on the raw value, alpha_actor * bound
bound = (largest |r|) / (1 - gamma) >= mean |Q|; rewards there are minus the number of unmet parts of the goal.
"""

from __future__ import annotations

from understudy.presets import Preset

OGBENCH = Preset(
    "ogbench",
    "512x4 GELU, normed critics, mean of two",
    "seohongpark/fql, agents/*.py; FQL stays normalised here, raw coefficients are in the domains' presets",
    {
        "*": {
            "policy.hidden": (512, 512, 512, 512), "policy.activation": "gelu", "policy.layer_norm": "none",
            "critic.hidden": (512, 512, 512, 512), "critic.activation": "gelu", "critic.layer_norm": "after",
            "critic.ensemble": 2, "critic.backup": "mean", "critic.aggregate": "mean",
            "critic.discount": 0.99, "critic.tau": 0.005, "critic.learning_rate": 3e-4, "learning_rate": 3e-4,
            "policy.base.hidden": (512, 512, 512, 512),
        },
        "bc": {"policy.deviation": "constant", "policy.tanh_mean": False},  # ogbench impls, gcbc
        # iql.py: minimum of the two targets, constant unit deviation, alpha 10
        "iql": {"critic.backup": "min", "critic.expectile": 0.9, "extraction.beta": 10.0, "extraction.clip": 100.0,
                "policy.deviation": "constant", "policy.std": 1.0, "policy.tanh_mean": False, "decay_steps": 0.0},
        # rebrac.py: minimum in the backup and in the policy's loss; noise .2 when acting
        "rebrac": {"critic.backup": "min", "critic.aggregate": "min", "critic.target_noise": 0.2,
                   "critic.target_noise_clip": 0.5, "extraction.exploration": 0.2, "policy_delay": 2},
        "fql": {"policy.steps": 10},
        "ifql": {"critic.backup": "min", "critic.expectile": 0.9, "extraction.samples": 32, "policy.steps": 10},
        # sac.py, which is RLPD with balanced sampling: two critics, q_agg min, no entropy in backups
        "sac": {"critic.backup": "min", "critic.entropy": False, "extraction.target_entropy": -0.5},
        "rlpd": {"critic.subset": 0, "critic.backup": "min", "critic.entropy": False,
                 "extraction.target_entropy": -0.5},
        "cal_ql": {"learning_rate": 3e-4},
        # the paper's critics, at the paper's rates
        "resfit": {"critic.ensemble": 10, "critic.backup": "min", "critic.learning_rate": 1e-4, "learning_rate": 1e-4},
        # ColinQiyangLi/qam, agents/dsrl.py: noise_scale, target_entropy_multiplier; the minimum is DSRL's own
        "dsrl": {"critic.backup": "min", "policy.bound": 1.0, "extraction.target_entropy": -0.5},
        "parrot": {"critic.backup": "min"},
        "h2o": {"critic.backup": "min", "critic.aggregate": "min"},  # its own
        "moorl": {"critic.backup": "min", "critic.aggregate": "min"},  # SAC's
        "ro2o": {"critic.ensemble": 10, "critic.backup": "min", "critic.aggregate": "min"},
    },
    {"*": {"batch_size": 256}, "rlpd": {"offline": 0, "utd": 1, "offline_share": 0.5}, "resfit": {"utd": 4},
     "cal_ql": {"utd": 1, "offline_share": 0.5}},
)  # fmt: skip

# domain: (discount, largest |r|, IQL alpha, ReBRAC (actor, critic), IFQL N, FQL alpha, FQL's backup)
DOMAINS = {
    "antmaze-large": (0.99, 1, 10.0, (0.003, 0.01), 32, 10.0, "min"),
    "antmaze-giant": (0.995, 1, 10.0, (0.003, 0.01), 32, 10.0, "min"),
    "humanoidmaze-medium": (0.995, 1, 10.0, (0.01, 0.01), 32, 30.0, "mean"),
    "humanoidmaze-large": (0.995, 1, 10.0, (0.01, 0.01), 32, 30.0, "mean"),
    "cube-single": (0.99, 1, 1.0, (1.0, 0.0), 32, 300.0, "mean"),
    "cube-double": (0.99, 2, 0.3, (0.1, 0.0), 32, 300.0, "mean"),
    "scene": (0.99, 5, 10.0, (0.1, 0.01), 32, 300.0, "mean"),
    "puzzle-3x3": (0.99, 9, 10.0, (0.3, 0.01), 32, 1000.0, "mean"),
    "puzzle-4x4": (0.99, 16, 3.0, (0.3, 0.01), 32, 1000.0, "mean"),
}

# Cal-QL in the offline-to-online table of that paper: a weight, or the gap of the Lagrange form; rewards x 10.
CAL_QL = {
    "humanoidmaze-medium": {"critic.lagrange": True, "critic.gap_target": 0.8},
    "cube-double": {"critic.weight": 0.01},
    "scene": {"critic.weight": 0.01},
    "puzzle-4x4": {"critic.weight": 0.003},
}


def _domain(domain: str, discount, reward, iql, rebrac, samples, fql, backup) -> tuple[Preset, Preset, Preset]:
    bound = reward / (1 - discount)
    settings = {
        "*": {"critic.discount": discount},
        "iql": {"extraction.beta": iql},
        "rebrac": {"extraction.normalise": True, "extraction.alpha": rebrac[0], "critic.penalty": rebrac[1]},
        "fql": {"extraction.normalise": False, "extraction.alpha": fql, "critic.backup": backup},
        "ifql": {"extraction.samples": samples},
    }
    run = {}
    if domain in CAL_QL:
        settings["cal_ql"], run["cal_ql"] = CAL_QL[domain], {"reward_scale": 10.0}
    name, source = f"ogbench-{domain}", "arXiv:2502.02538, tables 6 and 7; seohongpark/fql README"
    normalised, raw = float(f"{fql / bound:.3g}"), float(f"{rebrac[0] * bound:.3g}")
    own = f"own conversion of {name} by |Q| <= {bound:.4g}, not a published number"
    return (
        Preset(name, f"IQL {iql:g}, ReBRAC {rebrac[0]:g}/{rebrac[1]:g}, FQL {fql:g} raw", source, settings,
               run, base="ogbench"),
        Preset(f"{name}-normalised", f"the same but FQL {normalised:g} on Q / mean |Q|", own,
               {"fql": {"extraction.normalise": True, "extraction.alpha": normalised}}, base=name),
        Preset(f"{name}-raw", f"the same but ReBRAC {raw:g} on raw Q", own,
               {"rebrac": {"extraction.normalise": False, "extraction.alpha": raw}}, base=name),
    )  # fmt: skip


PRESETS = (
    OGBENCH,
    *(preset for domain, numbers in DOMAINS.items() for preset in _domain(domain, *numbers)),
    Preset(
        "ogbench-antsoccer-arena",
        "FQL 10 raw",
        "seohongpark/fql README; no tuned coefficients of the others are published there",
        {"*": {"critic.discount": 0.995}, "fql": {"extraction.normalise": False, "extraction.alpha": 10.0}},
        base="ogbench",
    ),
    Preset(
        "ogbench-antsoccer-arena-finetune",
        "FQL 30 raw, IFQL N 64, Cal-QL gap .2",
        "arXiv:2502.02538, offline-to-online table; seohongpark/fql README, --online_steps=1000000",
        {"fql": {"extraction.alpha": 30.0}, "ifql": {"extraction.samples": 64},
         "cal_ql": {"critic.lagrange": True, "critic.gap_target": 0.2}},
        {"cal_ql": {"reward_scale": 10.0}},
        base="ogbench-antsoccer-arena",
    ),
    Preset(
        "ogbench-humanoidmaze-medium-finetune",
        "FQL 100 raw for offline to online",
        "arXiv:2502.02538, offline-to-online table; seohongpark/fql README, --online_steps=1000000",
        {"fql": {"extraction.alpha": 100.0}},
        base="ogbench-humanoidmaze-medium",
    ),
)  # fmt: skip
