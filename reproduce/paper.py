"""The paper's two tables, as printed in it (Chan-To-Hing and Veeravalli, IGARSS 2024), to stand beside ours."""

from __future__ import annotations

SENSORS = ("S1", "S2", "S1+S2")

#: Table 1, mean average precision in percent on all of BigEarthNet-MM, by system and sensors.
FINETUNED = {
    "imagenet": (70.2, 85.5, 83.4),
    "dino": (69.7, 83.9, 84.6),
    "satvit": (75.4, 85.6, 85.5),
    "xad": (75.1, 86.9, 87.2),
    "xae": (75.9, 87.6, 88.1),
}
LINEAR = {
    "imagenet": (55.9, 58.5, 60.5),
    "dino": (52.7, 58.7, 60.3),
    "satvit": (52.4, 58.5, 58.0),
    "xad": (64.8, 71.8, 72.2),
    "xae": (57.5, 68.0, 70.0),
}
#: Table 2, SEN12MS: Top-1, Top-3, weighted precision, recall and F1 in percent. The paper does not name the sensor.
TRANSFER = {
    "imagenet": (58.6, 90.7, 75.2, 58.6, 60.1),
    "dino": (58.8, 91.0, 71.4, 58.8, 60.3),
    "satvit": (59.1, 91.8, 75.2, 59.1, 59.9),
    "xad": (58.8, 94.0, 73.9, 58.7, 60.5),
    "xae": (60.6, 94.3, 71.5, 60.6, 61.0),
}


def contradictions() -> list[str]:
    """What the tables contain against the paper's text, each computed from the figures above."""
    found = []
    if all(late > early for early, late in zip(LINEAR["xae"], LINEAR["xad"], strict=True)):
        found.append("early fusion is called the best, yet at 1 % of the labels XAD is ahead of XAE in every column")
    for key, (top1, _, _, recall, _) in TRANSFER.items():
        if recall != top1:
            found.append(f"weighted recall is accuracy by definition, yet {key} has {recall} beside {top1}")
    for place, metric in ((0, "accuracy"), (2, "precision")):  # recall is accuracy; in Top-3 and F1 both models lead
        for model in ("xae", "xad"):
            own, others = TRANSFER[model][place], {k: v[place] for k, v in TRANSFER.items() if k not in ("xae", "xad")}
            ahead = " and ".join(f"{key} ({value})" for key, value in others.items() if value > own)
            if ahead:
                said = f"it is said to outperform on all metrics, yet in {metric} {model} ({own}) is behind {ahead}"
                found.append(said)
    return found
