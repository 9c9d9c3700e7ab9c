"""Seeds: the same for the same place everywhere and always, different for everything else."""

from affinity_search.storage.trials.seeds import evaluation_seed, sampler_seed, trial_seed


def test_seeds_of_a_place_never_change() -> None:
    # Written down once: a change would make stored studies unrepeatable.
    assert trial_seed(0, 0) == 374425056
    assert (trial_seed(0, 7), sampler_seed(0, 7)) == (trial_seed(0, 7), sampler_seed(0, 7))


def test_places_purposes_and_studies_have_seeds_of_their_own() -> None:
    kinds = (trial_seed, sampler_seed, evaluation_seed)
    seeds = [kind(study, number) for kind in kinds for study in (0, 1, 2) for number in range(300)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)
