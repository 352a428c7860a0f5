from hf_pmgaft.demo import launch

launch()
