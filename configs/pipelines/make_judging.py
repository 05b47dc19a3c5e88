"""Judgments from which the small story model learns to judge: how judging.jsonl.gz was made.

    python configs/pipelines/make_judging.py

A rating in [-1, 1] of the package's rated stories becomes 0 to 5 points, in the words that
`jalign label` with ask: points looks for. Equally many stories of each number of points are taken,
as far as there are so many.
"""

from collections import defaultdict
from pathlib import Path

from jalign import embedded
from jalign.data import sources, write
from jalign.rewards.template import load

HERE = Path(__file__).parent
EACH = 60

template = load(HERE / "points.txt", ("prompt", "response"))
by_points = defaultdict(list)
for row in sources.read(embedded.rated()):
    prompt = template.fill(prompt=row["prompt"], response=row["completion"])
    points = round(2.5 * (row["rating"] + 1))
    by_points[points].append({"prompt": prompt, "completion": f"\nScore: {points}"})
for points, rows in sorted(by_points.items()):
    print(f"{points} points: {len(rows)} stories, of which {min(len(rows), EACH)} are taken")
write.write(HERE / "judging.jsonl.gz", [row for rows in by_points.values() for row in rows[:EACH]])
