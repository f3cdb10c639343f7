"""The seeds that make a LoadGen test comparable: one profile per MLPerf Inference version."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from sdxl_engine.errors import LoadgenError

DEFAULT_PROFILE = "v6.1"


@dataclass(frozen=True)
class Profile:
    """What one version of MLPerf Inference fixes, as compiled into LoadGen's wheels (`loadgen/mlperf.conf`).

    Args:
        version: Of MLPerf Inference.
        qsl_rng_seed: Seeds the choice of samples that are loaded together.
        sample_index_rng_seed: Seeds the order of samples within a query.
        schedule_rng_seed: Seeds the arrival times (Server) and is checked in every scenario.
        wheel: The PyPI requirement whose embedded mlperf.conf carries these seeds.
    """

    version: str
    qsl_rng_seed: int
    sample_index_rng_seed: int
    schedule_rng_seed: int
    wheel: str

    @property
    def seeds(self) -> dict[str, int]:
        """The three seeds under LoadGen's own names."""
        return {
            "qsl_rng_seed": self.qsl_rng_seed,
            "sample_index_rng_seed": self.sample_index_rng_seed,
            "schedule_rng_seed": self.schedule_rng_seed,
        }

    def check_seeds(self, settings: object) -> None:
        """Check the seeds that LoadGen took from its embedded mlperf.conf.

        The seeds are never written from here: reading them back also proves that the configuration was read
        at all, since LoadGen leaves them 0, and calls the run VALID, when it was not.

        Args:
            settings: A `mlperf_loadgen.TestSettings`, or anything with the three seeds as attributes.

        Raises:
            LoadgenError: a seed is another version's, or 0.
        """
        got = {name: getattr(settings, name) for name in self.seeds}
        if got != self.seeds:
            raise LoadgenError(
                f"LoadGen's seeds are not those of MLPerf Inference {self.version}",
                got=got,
                expected=self.seeds,
                source="the mlperf.conf embedded in the installed mlperf_loadgen",
                fix=f"pip install '{self.wheel}'",
            )


PROFILES = MappingProxyType(
    {
        "v6.1": Profile(
            version="v6.1",
            qsl_rng_seed=2085463073848966840,
            sample_index_rng_seed=2747215439041700203,
            schedule_rng_seed=16159082839903944936,
            wheel="mlcommons-loadgen>=6.0.16",
        )
    }
)
