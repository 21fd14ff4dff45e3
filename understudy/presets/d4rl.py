"""The D4RL stack, 256x2 ReLU networks, batch 256, min of two critics, and its domains.

Sources, by the tag used below:
  IQL     ikostrikov/implicit_q_learning           CQL     young-geng/CQL, antmaze settings in its issue 2
  CalQL   nakamotoo/Cal-QL, scripts/run_*.sh       RLPD    ikostrikov/rlpd, README commands, configs/
  ReBRAC  DT6A/ReBRAC and corl-team/CORL           FQL     seohongpark/fql, README commands
  CORL    corl-team/CORL, finetune configs         TD3BC   sfujim/TD3_BC
  IDQL    philippe-eecs/IDQL, launcher/examples    DQL     Zhendong-Wang/Diffusion-Policies-for-Offline-RL, main.py
  ResFiT  amazon-science/residual-offpolicy-rl     DSRL    ajwagen/dsrl, cfg/gym (there 128x3 networks)
  RO2O    BattleWen/RO2O
  WSRL    zhouzypaul/wsrl, experiments/            (its switch, utd and batch are the recipe's own)
  PARL    MaxSobolMark/PolicyAgnosticRL, configs/base_config.py and README

What a preset cannot carry: dropout (IQL), state normalisation (TD3BC, CORL), rewards scaled by the data's range of
returns (IQL, IDQL on locomotion), orthogonal initialisation (CQL, CalQL), gradient clipping (DQL).
"""

from __future__ import annotations

from understudy.presets import Preset

WIDE = {"policy.hidden": (512, 512, 512, 512), "policy.activation": "gelu",
        "critic.hidden": (512, 512, 512, 512), "critic.activation": "gelu", "critic.layer_norm": "after"}  # fmt: skip

# RLPD steps its policy once per environment step: every utd-th update.
RLPD_RUN = {"offline": 0, "utd": 20, "offline_share": 0.5, "warmup": 5000}  # RLPD: --utd_ratio=20 --start_training 5000
# RLPD: --config.hidden_dims="(256, 256, 256)" --config.backup_entropy=False
RLPD_DEEP = {"policy.hidden": (256, 256, 256), "critic.hidden": (256, 256, 256), "critic.entropy": False,
             "policy_delay": 0}  # fmt: skip

# WSRL ensemble_config.py, sac_config.py: ten layer-normed critics, two at random in the backup, policy normed too
WSRL = {"critic.ensemble": 10, "critic.subset": 2, "critic.layer_norm": "before", "policy.layer_norm": "before",
        "learning_rate": 1e-4}  # fmt: skip

D4RL = Preset(
    "d4rl",
    "256x2 ReLU, batch 256, min of two",
    "IQL, TD3BC, CQL (JaxCQL), CalQL, RLPD, ReBRAC, WSRL: defaults of the reference implementations",
    {
        "*": {
            "policy.hidden": (256, 256), "policy.activation": "relu", "policy.layer_norm": "none",
            "critic.hidden": (256, 256), "critic.activation": "relu", "critic.layer_norm": "none",
            "critic.ensemble": 2, "critic.backup": "min", "critic.aggregate": "min",
            "critic.discount": 0.99, "critic.tau": 0.005, "critic.learning_rate": 3e-4, "learning_rate": 3e-4,
        },
        "iql": {"critic.expectile": 0.7, "extraction.beta": 3.0, "extraction.clip": 100.0,  # IQL; rate decays offline
                "decay_steps": -1.0},
        # TD3BC; its alpha 2.5 is the recipe's own default, which needs the action size
        "td3_bc": {"extraction.exploration": 0.1,
                   "critic.target_noise": 0.2, "critic.target_noise_clip": 0.5, "policy_delay": 2},
        "rebrac": {"policy.hidden": (256, 256, 256), "critic.hidden": (256, 256, 256), "critic.layer_norm": "after",
                   "critic.target_noise": 0.2, "critic.target_noise_clip": 0.5, "policy_delay": 2},  # ReBRAC
        "cql": {"critic.weight": 5.0, "critic.samples": 10, "critic.importance": True},  # JaxCQL
        "cal_ql": {"learning_rate": 1e-4, "critic.weight": 5.0, "critic.samples": 10,  # CalQL
                   "critic.max_target_backup": True, "critic.entropy": False},
        "rlpd": {"critic.ensemble": 10, "critic.subset": 2, "critic.layer_norm": "before",
                 "critic.aggregate": "mean", "policy_delay": 0},  # RLPD: num_qs 10, num_min_qs 2, critic_layer_norm
        "wsrl": WSRL,
        "fql": {"policy.activation": "gelu"},
        "ifql": {"policy.activation": "gelu"},
        "idql": {"policy.hidden": (256, 256, 256), "policy.activation": "swish", "critic.expectile": 0.7,  # IDQL
                 "extraction.samples": 64, "decay_steps": -1.0},
        "diffusion_ql": {"policy.hidden": (256, 256, 256), "policy.activation": "mish", "extraction.eta": 1.0,  # DQL
                         "critic.hidden": (256, 256, 256), "critic.activation": "mish"},
        "resfit": {"critic.ensemble": 10, "critic.subset": 2, "critic.layer_norm": "before",  # ResFiT
                   "critic.aggregate": "mean", "policy.layer_norm": "before", "policy_delay": 0,
                   "critic.learning_rate": 1e-4, "learning_rate": 1e-4},
        "dsrl": {"policy.hidden": (256, 256, 256), "policy.activation": "tanh", "policy.layer_norm": "before",  # DSRL
                 "critic.hidden": (256, 256, 256), "critic.activation": "tanh", "critic.layer_norm": "before"},
        "ro2o": {"policy.hidden": (256, 256, 256), "critic.hidden": (256, 256, 256), "critic.ensemble": 10},  # RO2O
        "pa_rl": {"policy.activation": "gelu", "critic.activation": "swish", "critic.layer_norm": "before",  # PARL
                  "critic.ensemble": 10, "critic.subset": 2, "critic.aggregate": "mean", "critic.samples": 10,
                  "critic.weight": 0.005, "critic.importance": False, "extraction.samples": 32, "extraction.keep": 10,
                  "extraction.steps": 10, "extraction.step_size": 3e-4, "decay_steps": -1.0, "after_decay": 1 / 6},
    },
    {"*": {"batch_size": 256}, "rlpd": RLPD_RUN, "idql": {"batch_size": 512},
     "cal_ql": {"offline_share": 0.5, "utd": 1}, "dsrl": {"utd": 20}, "pa_rl": {"offline_share": 0.5, "utd": 1},
     "resfit": {"offline_share": 0.5, "utd": 4, "warmup": 10_000}, "ro2o": {"offline_share": 0.0, "warmup": 2500}},
)  # fmt: skip


# --- locomotion: ReBRAC's (actor, critic) coefficients per data set, "Revisiting the Minimalist Approach", appendix
LEVELS = ("random", "medium", "expert", "medium-expert", "medium-replay", "full-replay")
LOCOMOTION = {
    "halfcheetah": ((0.001, 0.1), (0.001, 0.01), (0.01, 0.01), (0.01, 0.1), (0.01, 0.001), (0.001, 0.1)),
    "hopper": ((0.001, 0.01), (0.01, 0.01), (0.1, 0.1), (0.1, 0.01), (0.05, 0.5), (0.01, 0.01)),
    "walker2d": ((0.01, 0.0), (0.05, 0.1), (0.01, 0.5), (0.01, 0.01), (0.05, 0.01), (0.01, 0.01)),
}


def _locomotion(robot: str, level: str, pair: tuple[float, float]) -> Preset:
    return Preset(
        f"d4rl-{robot}-{level}",
        f"ReBRAC {pair[0]:g}/{pair[1]:g}, batch 1024; IQL .7/3",
        "ReBRAC: rates 1e-3, batch 1024, coefficients per data set; IQL: expectile .7, beta 3; RLPD: 250k steps; "
        "WSRL: CQL for 250k updates",
        {
            "rebrac": {"extraction.alpha": pair[0], "critic.penalty": pair[1], "learning_rate": 1e-3,
                       "critic.learning_rate": 1e-3},
            "iql": {"critic.expectile": 0.7, "extraction.beta": 3.0},
            "rlpd": {"policy_delay": 0},
            "wsrl": {"critic.calibrated": False},  # returns of the behaviour are hard to tell there
        },
        {"rebrac": {"batch_size": 1024}, "rlpd": RLPD_RUN, "wsrl": {"offline": 250_000}},
        base="d4rl",
    )  # fmt: skip


# --- antmaze: rewards in the data are 0 and 1; every code base maps them in its own way
ANTMAZE = {  # ReBRAC's (actor, critic) coefficients; FQL's alpha; Diffusion-QL's eta (on the v0 data)
    "umaze": ((0.003, 0.002), 10.0, 0.5),
    "umaze-diverse": ((0.003, 0.001), 10.0, 2.0),
    "medium-play": ((0.001, 0.0005), 10.0, 2.0),
    "medium-diverse": ((0.001, 0.0), 10.0, 3.0),
    "large-play": ((0.002, 0.001), 3.0, 4.5),
    "large-diverse": ((0.002, 0.002), 3.0, 3.5),
}


def _antmaze(maze: str, pair: tuple[float, float], alpha: float, eta: float) -> Preset:
    return Preset(
        f"d4rl-antmaze-{maze}",
        f"IQL .9/10, ReBRAC {pair[0]:g}/{pair[1]:g}, FQL {alpha:g}",
        "IQL; ReBRAC: gamma .999, rewards x 100; CQL issue 2; CalQL run_antmaze.sh; RLPD README; FQL README (512x4); "
        "WSRL train_config.py; IDQL; DQL; PARL README",
        {
            "iql": {"critic.expectile": 0.9, "extraction.beta": 10.0},
            "rebrac": {"extraction.alpha": pair[0], "critic.penalty": pair[1], "critic.discount": 0.999,
                       "learning_rate": 3e-4, "critic.learning_rate": 5e-5},
            "cql": {"critic.lagrange": True, "critic.gap_target": 0.2, "critic.weight": 5.0,
                    "critic.max_target_backup": True, "critic.gap_min": -200.0, "learning_rate": 1e-4,
                    "critic.learning_rate": 3e-4, "critic.hidden": (256, 256, 256)},
            "cal_ql": {"critic.lagrange": True, "critic.gap_target": 0.8, "critic.weight": 5.0,
                       "policy.hidden": (256, 256), "critic.hidden": (256, 256, 256, 256)},
            "wsrl": {"critic.lagrange": True, "critic.gap_target": 0.8, "critic.weight": 5.0,
                     "policy.hidden": (256, 256), "critic.hidden": (256, 256, 256, 256)},
            "rlpd": {**RLPD_DEEP, "critic.subset": 1},  # --config.num_min_qs=1: no minimum
            "pa_rl": {"critic.hidden": (256, 256, 256, 256), "critic.head": "hl_gauss", "critic.bins": 128,  # PARL
                      "critic.v_min": -100.0, "critic.v_max": 0.0},
            "fql": {**WIDE, "critic.backup": "mean", "critic.aggregate": "mean", "extraction.normalise": False,
                    "extraction.alpha": alpha},
            "ifql": {**WIDE, "critic.expectile": 0.9, "extraction.samples": 32},
            "idql": {"critic.expectile": 0.9},
            "diffusion_ql": {"extraction.eta": eta, "critic.backup_samples": 1 if maze == "umaze" else 10,
                             "learning_rate": 1e-3 if maze == "medium-play" else 3e-4},
        },
        {
            "idql": {"reward_bias": -1.0}, "diffusion_ql": {"reward_scale": 4.0, "reward_bias": -2.0},
            "iql": {"reward_bias": -1.0}, "fql": {"reward_bias": -1.0}, "ifql": {"reward_bias": -1.0},
            "rebrac": {"reward_scale": 100.0},
            "cql": {"reward_scale": 10.0, "reward_bias": -5.0},
            "cal_ql": {"reward_scale": 10.0, "reward_bias": -5.0, "offline_share": 0.5},
            "wsrl": {"reward_scale": 10.0, "reward_bias": -5.0, "offline": 1_000_000},
            "rlpd": {**RLPD_RUN, "reward_bias": -1.0},
            "pa_rl": {"reward_bias": -1.0, "offline_share": 0.5},
        },
        base="d4rl",
    )  # fmt: skip


# --- adroit with the dense rewards of D4RL
ADROIT = {  # ReBRAC's (actor, critic) coefficients; FQL's alpha, offline
    "pen-human": ((0.1, 0.5), 10000.0), "pen-cloned": ((0.05, 0.5), 10000.0), "pen-expert": ((0.01, 0.01), 3000.0),
    "door-human": ((0.1, 0.1), 30000.0), "door-cloned": ((0.01, 0.1), 30000.0), "door-expert": ((0.05, 0.01), 30000.0),
    "hammer-human": ((0.01, 0.5), 30000.0), "hammer-cloned": ((0.1, 0.5), 10000.0),
    "hammer-expert": ((0.01, 0.01), 30000.0),
    "relocate-human": ((0.1, 0.01), 10000.0), "relocate-cloned": ((0.1, 0.01), 30000.0),
    "relocate-expert": ((0.05, 0.01), 30000.0),
}  # fmt: skip


def _adroit(task: str, pair: tuple[float, float], alpha: float) -> Preset:
    return Preset(
        f"d4rl-{task}",
        f"ReBRAC {pair[0]:g}/{pair[1]:g}, IQL .7/.5, FQL {alpha:g}",
        "ReBRAC: rate 3e-4, batch 256; IQL: .7/.5, dropout left out; FQL README: 512x4, min of two in the backup",
        {
            "rebrac": {"extraction.alpha": pair[0], "critic.penalty": pair[1]},
            "iql": {"critic.expectile": 0.7, "extraction.beta": 0.5},
            "fql": {**WIDE, "critic.backup": "min", "critic.aggregate": "mean", "extraction.normalise": False,
                    "extraction.alpha": alpha},
        },
        base="d4rl",
    )  # fmt: skip


# --- adroit with sparse rewards: what Cal-QL, RLPD and WSRL fine-tune on
BINARY = {
    "cal_ql": {"critic.weight": 1.0, "critic.lagrange": False, "policy.hidden": (512, 512),
               "critic.hidden": (512, 512, 512)},  # CalQL run_adroit.sh: 20k offline updates, then 2e5 to 1e6 steps
    "cql": {"critic.weight": 1.0, "policy.hidden": (512, 512), "critic.hidden": (512, 512, 512),
            "learning_rate": 1e-4, "critic.max_target_backup": True},  # the same script without --enable_calql
    "wsrl": {"critic.weight": 1.0, "policy.hidden": (512, 512), "critic.hidden": (512, 512, 512)},  # train_config.py
    "rlpd": RLPD_DEEP,  # RLPD README, no offline phase
    "iql": {"critic.expectile": 0.8, "extraction.beta": 3.0},  # CORL, adroit fine-tuning
}  # fmt: skip

PRESETS = (
    D4RL,
    *(_locomotion(r, level, p) for r, pairs in LOCOMOTION.items() for level, p in zip(LEVELS, pairs)),
    *(_antmaze(maze, *numbers) for maze, numbers in ANTMAZE.items()),
    *(_adroit(task, pair, alpha) for task, (pair, alpha) in ADROIT.items()),
    Preset(
        "adroit-binary",
        "rewards -1, 0: Cal-QL, WSRL at 10r+5; RLPD",
        "CalQL run_adroit.sh (scale 10, bias 5, mixing .5); RLPD README (rewards as they are); CORL for IQL; WSRL "
        "launch_wsrl_finetune.sh (20k updates offline)",
        BINARY,
        {
            "cal_ql": {"offline_share": 0.5, "utd": 1, "reward_scale": 10.0, "reward_bias": 5.0},
            "cql": {"offline_share": 0.5, "utd": 1, "reward_scale": 10.0, "reward_bias": 5.0},
            "wsrl": {"offline": 20_000, "reward_scale": 10.0, "reward_bias": 5.0},
            "rlpd": RLPD_RUN,
        },
        base="d4rl",
    ),
    Preset(
        "adroit-sparse",
        "rewards -0.1, 10 mapped to those",
        "adroit-binary; own conversion: -5, 5 = 10/10.1 r - 4.90099 (CalQL), -1, 0 = r/10.1 - 10/10.1 (RLPD, IQL)",
        {},
        {
            "cal_ql": {"reward_scale": 10 / 10.1, "reward_bias": 1 / 10.1 - 5},
            "cql": {"reward_scale": 10 / 10.1, "reward_bias": 1 / 10.1 - 5},
            "wsrl": {"reward_scale": 10 / 10.1, "reward_bias": 1 / 10.1 - 5},
            "rlpd": {"reward_scale": 1 / 10.1, "reward_bias": -10 / 10.1},
            "iql": {"reward_scale": 1 / 10.1, "reward_bias": -10 / 10.1},
        },
        base="adroit-binary",
    ),
    Preset(
        "d4rl-kitchen",
        "IQL .7/.5, Cal-QL, WSRL 512x3 at r-4",
        "IQL; CalQL: both 512x3, weight 5, mixing .25, rewards - 4; WSRL: the same networks, 250k updates offline",
        {
            "iql": {"critic.expectile": 0.7, "extraction.beta": 0.5},
            "cal_ql": {"policy.hidden": (512, 512, 512), "critic.hidden": (512, 512, 512), "critic.weight": 5.0,
                       "critic.importance": False},
            "diffusion_ql": {"extraction.eta": 0.005},
            "wsrl": {"policy.hidden": (512, 512, 512), "critic.hidden": (512, 512, 512), "critic.weight": 5.0,
                     "critic.importance": False},
        },
        {"cal_ql": {"offline_share": 0.25, "reward_bias": -4.0}, "wsrl": {"offline": 250_000, "reward_bias": -4.0}},
        base="d4rl",
    ),
    Preset(
        "d4rl-maze2d",
        "ReBRAC .003/.001",
        "ReBRAC: rate 3e-4, batch 256",
        {"rebrac": {"extraction.alpha": 0.003, "critic.penalty": 0.001}},
        base="d4rl",
    ),
)  # fmt: skip
