from understudy.data.dataset import load, Dataset
