"""The affinity loss in a Keras model of your own, on scikit-learn's digits.

    python examples/affinity_head.py

It takes about ten seconds on a CPU. `margin` (lambda), `sigma` and `n_centers` decide whether the loss helps: search
them with a study, as examples/search_from_python.py does.
"""

import keras
from sklearn.datasets import load_digits
from sklearn.metrics import f1_score
from sklearn.model_selection import train_test_split

from affinity_search import AffinityHead, AffinityLoss


def main() -> None:
    """Train, save, load, score."""
    keras.utils.set_random_seed(0)
    images, labels = load_digits(return_X_y=True)
    train, test, train_labels, test_labels = train_test_split(images / 16, labels, random_state=0, stratify=labels)
    inputs = keras.Input((64,))
    features = keras.layers.Dense(64, activation="relu")(inputs)
    features = keras.layers.BatchNormalization()(features)  # sigma is a squared distance between such features
    model = keras.Model(inputs, AffinityHead(n_classes=10, n_centers=5, sigma=50.0)(features))
    model.compile(optimizer="adam", loss=AffinityLoss(margin=0.4))
    model.fit(train, train_labels, epochs=20, batch_size=64, verbose=2)
    model.save("affinity-digits.keras")
    loaded = keras.saving.load_model("affinity-digits.keras")
    predicted = loaded.predict(test, verbose=0).argmax(axis=1)
    print(f"macro F1 on {len(test)} test images: {f1_score(test_labels, predicted, average='macro'):.4f}")


if __name__ == "__main__":
    main()
