"""People's own images and feature vectors, read from folders of image files or from NumPy's files into one array.

Everything found wrong comes in one DataError, a line each. It knows nothing of studies or of Keras.
"""

from affinity_search.search.training.data.own.alike import Alike, Duplicates, duplicates
from affinity_search.search.training.data.own.arrays import read_arrays, read_features, read_vectors
from affinity_search.search.training.data.own.collection import PARTS, Collection, Progress, Wanted
from affinity_search.search.training.data.own.folder import read_files, read_folder
from affinity_search.search.training.data.own.measure import ClassSizes, Sizes, sizes
from affinity_search.search.training.data.own.scan import File, walk

__all__ = [
    "PARTS",
    "Alike",
    "ClassSizes",
    "Collection",
    "Duplicates",
    "File",
    "Progress",
    "Sizes",
    "Wanted",
    "duplicates",
    "read_arrays",
    "read_features",
    "read_files",
    "read_folder",
    "read_vectors",
    "sizes",
    "walk",
]
