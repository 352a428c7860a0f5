"""The base of objectives: what a subclass may set, and when it steers the attack."""

import pytest

from hf_pmgaft.objectives import OBJECTIVES, Objective, make_objective


def test_an_objective_that_sets_attacks_is_refused_where_it_is_written():
    with pytest.raises(TypeError, match="Mine sets `attacks`, which nothing reads.*`uses_attack`"):

        class Mine(Objective):
            attacks = False

    with pytest.raises(TypeError, match="Optional sets `attacks`"):

        class Optional(Objective):
            @property
            def attacks(self):
                return False


def test_an_objective_steers_the_attack_where_it_has_a_loss_for_it():
    steered = {name for name in OBJECTIVES if make_objective(name).steers_attack}
    assert steered == {"advflyp", "agft", "fap", "fare", "mpm_nce", "qt_aft", "sim_clip", "trades"}
