"""Values of other programs for the formulas in jalign.eval.metrics, with their inputs, in
oracles.json.

Each part runs where its program is installed and replaces its entry:

    python make_oracles.py statistics     # scipy 1.17.1, statsmodels 0.15.0, scikit-learn 1.9.1,
                                          # nltk 3.10.4, choix 0.4.1
    python make_oracles.py arena_rank     # arena-rank 0.1.1
    python make_oracles.py alpaca_eval CHECKOUT     # its src/alpaca_eval/metrics/glm_winrate.py
    python make_oracles.py arena_hard CHECKOUT      # lmarena/arena-hard-auto, with torch
    python make_oracles.py reward_bench CHECKOUT    # allenai/reward-bench, rewardbench/utils.py
    python make_oracles.py bbq SITE_PACKAGES        # of lm_eval 0.4.13
    python make_oracles.py llmbar CHECKOUT          # verdicts of ChatGPT in princeton-nlp/LLMBar
"""

from __future__ import annotations

import ast
import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("oracles.json")


def functions_of(path: Path, names: set[str], known: dict) -> dict:
    """Functions of a file without its imports, most of which are not needed here."""
    nodes = [n for n in ast.parse(path.read_text()).body if getattr(n, "name", "") in names]
    for node in nodes:
        node.decorator_list = []
        if isinstance(node, ast.FunctionDef):
            node.returns = None
            for arg in node.args.args:
                arg.annotation = None
    space = dict(known)
    exec(compile(ast.Module(nodes, []), str(path), "exec"), space)
    return space


def games(rng, models=5, count=90):
    strength = np.array([0.0, 0.4, -0.7, 1.1, 0.2])[:models]
    a = rng.integers(0, models, count)
    b = (a + rng.integers(1, models, count)) % models
    p = 1 / (1 + np.exp(strength[b] - strength[a]))
    y = np.where(rng.random(count) < 0.2, 0.5, (rng.random(count) < p).astype(float))
    return a, b, y


def statistics(_):
    import choix
    import nltk.translate.bleu_score as bleu
    import statsmodels.api as sm
    from scipy import optimize, stats
    from sklearn import calibration, metrics
    from statsmodels.stats.inter_rater import cohens_kappa
    from statsmodels.stats.multitest import multipletests
    from statsmodels.stats.proportion import proportion_confint

    rng, out = np.random.default_rng(7), {}
    out["wilson"] = [
        [k, n, c, *proportion_confint(k, n, alpha=1 - c, method="wilson")]
        for k, n, c in [(0, 7, 0.95), (3, 11, 0.9), (88.5, 120, 0.99), (40, 40, 0.95)]
    ]
    out["sign_test"] = [[w, n, stats.binomtest(w, w + n).pvalue] for w, n in [(3, 9), (51, 30)]]
    p = rng.random(9) ** 3
    reject, adjusted, *_ = multipletests(p, 0.1, method="holm")
    out["holm"] = {"p": p, "alpha": 0.1, "adjusted": adjusted, "reject": reject}

    a, b = rng.normal(1, 2, 23), rng.normal(0.4, 1.5, 23)
    result = stats.bootstrap(
        (a, b),
        lambda x, y, axis: (x - y).mean(axis),
        paired=True,
        vectorized=True,
        n_resamples=200_000,
        method="percentile",
        rng=1,
    )
    out["paired_bootstrap"] = {
        "a": a,
        "b": b,
        "interval": list(result.confidence_interval),
        "standard_error": float((a - b).std() / np.sqrt(23)),
    }

    judge, human = rng.choice([0, 0.5, 1], 60, p=[0.4, 0.2, 0.4]), rng.choice([0, 0.5, 1], 60)
    human = np.where(rng.random(60) < 0.5, judge, human)
    table = [[int(((judge == i) & (human == j)).sum()) for j in (0, 0.5, 1)] for i in (0, 0.5, 1)]
    kappa = cohens_kappa(np.array(table))
    out["agreement"] = {
        "judge": judge,
        "human": human,
        "kappa": kappa.kappa,
        "interval": [kappa.kappa_low, kappa.kappa_upp],
        "sklearn": metrics.cohen_kappa_score(*(np.asarray(x * 2, int) for x in (judge, human))),
    }

    len_a, len_b = rng.integers(20, 300, 70), rng.integers(20, 300, 70)
    human = rng.random(70)
    logit = 0.01 * (len_a - len_b) + 2 * (human - 0.5) + 0.3
    verdict = np.round(1 / (1 + np.exp(-logit - rng.logistic(0, 1, 70))), 3)
    d = (len_a - len_b) / (len_a - len_b).std(ddof=1)
    out["length_bias"] = {"preference": verdict, "len_a": len_a, "len_b": len_b, "human": human}
    for name, columns in (("plain", [d, d**0]), ("controlled", [d, d**0, human - 0.5])):
        fit = sm.GLM(verdict, np.stack(columns, -1), family=sm.families.Binomial()).fit(
            cov_type="HC0", tol=1e-14, maxiter=500
        )
        out["length_bias"][name] = {"slope": fit.params[0], "interval": fit.conf_int()[0]}

    probabilities, outcomes = np.round(rng.random(80), 4), rng.integers(0, 2, 80)
    true, predicted = calibration.calibration_curve(outcomes, probabilities, n_bins=5)
    counts = np.histogram(probabilities, np.linspace(0, 1, 6))[0]
    out["reliability"] = {
        "probabilities": probabilities,
        "outcomes": outcomes,
        "outcome": true,
        "probability": predicted,
        "ece": float((counts / 80) @ np.abs(true - predicted)),
        "brier": metrics.brier_score_loss(outcomes, probabilities),
        "nll": metrics.log_loss(outcomes, probabilities),
    }

    kl, errors = np.sort(rng.uniform(0.2, 20, 9)), rng.uniform(0.02, 0.2, 9)
    d, out["frontier"] = np.sqrt(kl), {"kl": kl, "errors": errors}
    for form, law in (
        ("bon", lambda x, a, b: x * (a - b * x)),
        ("rl", lambda x, a, b: x * (a - b * np.log(x))),
    ):
        gold = law(d, 1.3, 0.35) + errors * rng.normal(0, 1, 9)
        known = optimize.curve_fit(law, d, gold, sigma=errors, absolute_sigma=True)
        free = optimize.curve_fit(law, d, gold)
        out["frontier"][form] = {"gold": gold, "known": known, "free": free}

    words = ["the", "a", "cat", "dog", "sat", "ran", "on", "mat", "big", "red"]
    texts = [[words[i] for i in rng.integers(0, 10, n)] for n in (9, 12, 4, 15, 7, 2)]
    texts[3] = texts[0] + texts[1][:4]
    smooth = bleu.SmoothingFunction().method1
    scores = [
        bleu.sentence_bleu(texts[:i] + texts[i + 1 :], t, smoothing_function=smooth)
        for i, t in enumerate(texts)
    ]
    out["self_bleu"] = {"texts": texts, "value": float(np.mean(scores))}

    a, b, y = games(rng)
    pairs = [(i, j) for i, j, w in zip(a, b, y, strict=True) for _ in range(round(2 * w))]
    pairs += [(j, i) for i, j, w in zip(a, b, y, strict=True) for _ in range(round(2 - 2 * w))]
    # every game counts twice, a tie once for each side
    out["choix"] = {"a": a, "b": b, "outcome": y}
    for alpha in (0.0, 1.5):
        options = {"alpha": alpha, "method": "Newton-CG", "tol": 1e-12}
        out["choix"][str(alpha)] = choix.opt_pairwise(5, pairs, **options)
    return out


def arena_rank(_):
    import pandas as pd
    from arena_rank.models.bradley_terry import BradleyTerry
    from arena_rank.utils.data_utils import PairDataset

    a, b, y = games(np.random.default_rng(11), count=140)
    names = [f"m{i}" for i in range(5)]
    winner = np.where(y == 0.5, "tie", np.where(y == 1, "model_a", "model_b"))
    frame = pd.DataFrame(
        {"model_a": [names[i] for i in a], "model_b": [names[i] for i in b], "winner": winner}
    )
    data = PairDataset.from_pandas(frame)
    model = BradleyTerry(5, hessian_reg=1e-6, ftol=1e-15, gtol=1e-12)
    fit = model.compute_ratings_and_cis(data, ci_method="sandwich")
    out = {name: np.asarray(fit[name]) for name in ("ratings", "rating_lower", "rating_upper")}
    return {"a": a, "b": b, "outcome": y} | out


def alpaca_eval(checkout):
    import pandas as pd
    import sklearn
    from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
    from sklearn.metrics import make_scorer
    from sklearn.model_selection import PredefinedSplit

    class Folds(PredefinedSplit):
        """Prompt i in fold i mod 5: the order of GroupKFold among equal groups is not specified."""

        def __init__(self, n_splits):
            self.n_splits = n_splits

        def split(self, X, y=None, groups=None):
            fold = np.asarray(groups) % self.n_splits
            for f in range(self.n_splits):
                yield np.flatnonzero(fold != f), np.flatnonzero(fold == f)

        def get_n_splits(self, X=None, y=None, groups=None):
            return self.n_splits

        def get_metadata_routing(self):
            from sklearn.utils.metadata_routing import MetadataRequest

            request = MetadataRequest(owner="Folds")
            request.split.add_request(param="groups", alias=True)
            return request

    path = Path(checkout) / "src/alpaca_eval/metrics/glm_winrate.py"
    names = {"logloss", "logloss_continuous", "fit_LogisticRegressionCV"}
    known = {
        "np": np,
        "pd": pd,
        "sklearn": sklearn,
        "LogisticRegression": LogisticRegression,
        "LogisticRegressionCV": LogisticRegressionCV,
        "make_scorer": make_scorer,
        "GroupKFold": Folds,
    }
    fit = functions_of(path, names, known)["fit_LogisticRegressionCV"]
    rng, n, g = np.random.default_rng(5), 60, 40
    len_m, len_b = rng.integers(100, 2000, n), rng.integers(100, 1500, n)
    hard = rng.normal(0, 1, n)
    logit = 0.4 + 0.0012 * (len_m - len_b) - 0.8 * hard
    p = np.round(1 / (1 + np.exp(-logit - rng.logistic(0, 0.7, n))), 4)
    gamed = {
        "preference": np.round(rng.random(g), 4),
        "length": rng.normal(0, 1.2, g),
        "difficulty": rng.normal(0, 1, g),
    }
    delta = pd.Series(len_b - len_m)
    x1 = np.tanh(delta / delta.std()).to_numpy()
    tight = {"tol": 1e-13, "max_iter": 100_000}
    out = {"preference": p, "model_len": len_m, "baseline_len": len_b}
    out |= {"difficulty": hard, "gamed": gamed}
    minimal = pd.DataFrame({"length": x1, "model": 1.0})
    full = pd.DataFrame({"length": x1, "difficulty": hard, "model": 1.0})
    extra = pd.DataFrame(
        {
            "length": np.tanh(gamed["length"]),
            "difficulty": gamed["difficulty"],
            "model": 0.0,
        }
    )
    weights = np.concatenate([np.full(g, 0.1), np.ones(n)])
    cases = {
        "minimal": (minimal, p, None),
        "full": (
            pd.concat([extra, full], ignore_index=True),
            np.concatenate([gamed["preference"], p]),
            weights,
        ),
    }
    for name, (x, y, weight) in cases.items():
        data = x.assign(preference=y)
        model = fit(data, "preference", sample_weight=weight, **tight)
        test = (minimal if name == "minimal" else full).assign(length=0.0)
        predicted = model.predict_proba(test)[:, 1]
        out[name] = {
            "weights": model.coef_[0],
            "c": float(model.C_[0]),
            "win_rate": predicted.mean(),
            "standard_error": pd.Series(predicted).sem(),
        }
        at_default = fit(data, "preference", sample_weight=weight)
        out[name]["at_default_tolerance"] = at_default.predict_proba(test)[:, 1].mean()
    return out


def arena_hard(checkout):
    import re

    import torch
    import torch.nn.functional as F
    from torch import nn, optim

    root, rng = Path(checkout), np.random.default_rng(3)
    known = {"re": re}
    counts = functions_of(
        root / "utils/add_markdown_info.py", {"count_markdown_elements", "remove_pattern"}, known
    )
    texts = [
        "# Title\n## Sub\n- one\n- two\n1. three\n**bold** and __strong__ text\n",
        "Plain text with 2. no list and *one star*\n```\n# not a header\n- nor a list\n```\n",
        "###### six\n####### seven\n  * indented **a** **b**\n+ plus\n12. twelve\n",
    ]
    pattern = re.compile("```([^`]*)```")
    rows = [
        counts["count_markdown_elements"](counts["remove_pattern"](t, pattern), "") for t in texts
    ]
    table = [[sum(values.values()) for values in row.values()] for row in rows]

    torch.set_default_dtype(torch.float64)

    class InDouble:
        """Their loss takes float32 targets, and the fit would stop at its rounding."""

        @staticmethod
        def binary_cross_entropy_with_logits(x, y, reduction):
            return F.binary_cross_entropy_with_logits(x, y.double(), reduction=reduction)

    registry = {"nn": nn, "torch": torch, "F": InDouble, "optim": optim}
    space = functions_of(
        root / "utils/math_utils.py",
        {"BTModel", "bt_loss", "fit_pairwise_model", "one_hot_encode"},
        registry | {"REGISTER_LOSSES": {}, "REGISTER_MODELS": {}},
    )
    space["REGISTER_MODELS"]["bt"], space["REGISTER_LOSSES"]["bt"] = (
        space["BTModel"],
        space["bt_loss"],
    )
    m = 120
    model = rng.integers(0, 3, m)
    score = np.where(rng.random(m) < 0.2, 0.5, (rng.random(m) < 0.4 + 0.1 * model).astype(float))
    style_m = np.stack([rng.integers(20, 900, m), *rng.integers(0, 12, (3, m))], -1)
    style_b = np.stack([rng.integers(20, 900, m), *rng.integers(0, 12, (3, m))], -1)
    a, b = torch.tensor(style_m, dtype=torch.float64), torch.tensor(style_b, dtype=torch.float64)
    features = torch.zeros_like(a)
    features[:, 0] = (a[:, 0] - b[:, 0]) / (a[:, 0] + b[:, 0])
    da, db = a[:, 1:] / (a[:, :1] + 1), b[:, 1:] / (b[:, :1] + 1)
    features[:, 1:] = (da - db) / (da + db + 1)
    features = (features - features.mean(0)) / features.std(0)
    names = ["x0", "x1", "x2"]
    one_hot, unique = space["one_hot_encode"]([names[i] for i in model], baseline="base")
    design = torch.cat([one_hot.double(), features], 1)
    logits, _ = space["fit_pairwise_model"](
        design, torch.tensor(score), lr=1.0, tol=1e-15, max_epochs=2000
    )
    logits = logits.numpy()
    strength = logits[[unique.index(n) for n in names]] - logits[unique.index("base")]
    return {
        "texts": texts,
        "counts": table,
        "model": model,
        "score": score,
        "style_model": style_m,
        "style_baseline": style_b,
        "features": features.numpy(),
        "strength": strength,
        "coefficients": logits[-4:],
    }


def reward_bench(checkout):
    rng = np.random.default_rng(9)
    path = Path(checkout) / "rewardbench/utils.py"
    names = {"calculate_scores_per_section", "_compute_prompt_stats", "process_single_model"}
    known = {"np": np, "defaultdict": defaultdict}
    from typing import Any

    known |= {"Dict": dict, "List": list, "Tuple": tuple, "Any": Any}
    space = functions_of(path, names, known)
    constants: dict = {}
    exec((Path(checkout) / "rewardbench/constants.py").read_text(), constants)
    counts, mapping = constants["EXAMPLE_COUNTS"], constants["SUBSET_MAPPING"]
    subset = rng.permutation(list(counts) * 3)
    chosen, rejected = (
        rng.normal(0.4, 1, len(subset)).round(1),
        rng.normal(0, 1, len(subset)).round(1),
    )
    metrics = {s: float((chosen > rejected)[subset == s].mean()) for s in counts}
    sections = space["calculate_scores_per_section"](counts, mapping, metrics)

    class Rows(list):
        column_names = ()

        def add_column(self, *_):
            return self

    reference = list(rng.normal(0, 1, (8, 4)) + np.array([1.0, 0, 0, 0]))
    correct = rng.integers(2, 5, 8)
    tied = [rng.normal(0, 0.5, n + 3) + np.repeat([1.4, 0.0], [n, 3]) for n in correct]
    tied[5][: correct[5]] = 0.7  # no spread
    rows = [
        {"id": f"ref:{i}", "scores": x.tolist(), "num_correct": 1} for i, x in enumerate(reference)
    ]
    rows += [
        {"id": f"tied:{i}", "scores": x.tolist(), "num_correct": int(n)}
        for i, (x, n) in enumerate(zip(tied, correct, strict=True))
    ]
    with np.errstate(divide="ignore"):
        _, score = space["process_single_model"](Rows(rows))
    return {
        "chosen": chosen,
        "rejected": rejected,
        "subset": subset,
        "sections": sections,
        "ties": {"reference": reference, "tied": tied, "correct": correct, "score": score},
    }


def bbq(site):
    rng, n = np.random.default_rng(13), 64
    path = Path(site) / "lm_eval/tasks/bbq/utils.py"
    names = {
        "agg_accuracy_amb",
        "agg_accuracy_disamb",
        "agg_disamb_bias_scores",
        "agg_amb_bias_scores",
    }
    space = functions_of(path, names, {"np": np})
    clear = rng.integers(0, 2, n)
    unknown = (rng.random(n) < np.where(clear, 0.15, 0.55)).astype(int)
    biased = np.where(unknown, 0, rng.random(n) < 0.7).astype(int)
    correct = np.where(clear, (1 - unknown) * (rng.random(n) < 0.6), unknown)
    plain = list(zip(correct, clear, strict=True))
    rows = list(zip(correct, biased, 1 - unknown, clear, strict=True))
    return {
        "correct": correct,
        "biased": biased,
        "unknown": unknown,
        "ambiguous": 1 - clear,
        "values": [
            space["agg_accuracy_amb"](plain),
            space["agg_accuracy_disamb"](plain),
            space["agg_amb_bias_scores"](rows),
            space["agg_disamb_bias_scores"](rows),
        ],
    }


def llmbar(checkout):
    """Verdicts of a real judge in both orders, 1 for the first output, and LLMBar's own numbers."""
    folder = Path(checkout) / "Dataset/LLMBar/Natural/evaluators/ChatGPT/Vanilla_NoRules"
    rows = json.loads((folder / "result.json").read_text())
    published = json.loads((folder / "statistics.json").read_text())
    orders = {"first": "swap = False", "second": "swap = True"}
    out = {
        name: [2 - int(row["results"][0][key]["winner"]) for row in rows]
        for name, key in orders.items()
    }
    percent = {
        "equal": float(published["equal"].split("=")[1].strip(" %")),
        "correct": float(published["correct_average"].strip(" %")),
    }
    out |= {"human": [2 - row["label"] for row in rows], "percent": percent}
    return out | {"kappa_of_orders": published["kappa_agreement"]}


def plain(value):
    """Arrays and numpy scalars as JSON holds them; every digit of a float64."""
    if isinstance(value, dict):
        return {name: plain(x) for name, x in value.items()}
    if isinstance(value, list | tuple):
        return [plain(x) for x in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


ALL = statistics, arena_rank, alpaca_eval, arena_hard, reward_bench, bbq, llmbar
PARTS = {part.__name__: part for part in ALL}

if __name__ == "__main__":
    name, *source = sys.argv[1:]
    oracles = json.loads(FILE.read_text()) if FILE.exists() else {}
    oracles[name] = plain(PARTS[name](source[0] if source else None))
    lines = (f"{json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(oracles.items()))
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
