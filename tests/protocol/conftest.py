"""Hypothesis profiles: `find` is for mutants, where the smallest example is of no interest."""

from hypothesis import Phase, settings

settings.register_profile("find", phases=[Phase.explicit, Phase.generate])
