"""Bag of words: the student: tf-idf of all words, one hidden layer, a softmax; trained from scratch.

It has 300 weights for every text and fits every label that it is given, as large networks do, so that it believes wrong
labels, too. There is no stopping early: that would need clean labels to tell when.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int64
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer

HIDDEN, EPOCHS, BATCH, RATE = 32, 12, 32, 5e-3


class Texts:
    """What the student sees of texts: the vocabulary is that of the training texts alone."""

    def __init__(self, train: Sequence[str], test: Sequence[str]) -> None:
        tfidf = TfidfVectorizer(sublinear_tf=True, min_df=2)
        self.train, self.test = csr_matrix(tfidf.fit_transform(train)), csr_matrix(tfidf.transform(test))


class Student(torch.nn.Module):
    """Rows of tf-idf to logits of all classes."""

    def __init__(self, num_words: int, classes: int) -> None:
        super().__init__()
        self.words = torch.nn.EmbeddingBag(num_words, HIDDEN, mode="sum")
        torch.nn.init.normal_(self.words.weight, std=0.3)
        self.out = torch.nn.Linear(HIDDEN, classes)

    def forward(self, rows: csr_matrix) -> torch.Tensor:
        ids, starts = (torch.from_numpy(each.astype(np.int64)) for each in (rows.indices, rows.indptr[:-1]))
        weights = torch.from_numpy(rows.data.astype(np.float32))
        return self.out(torch.relu(self.words(ids, starts, per_sample_weights=weights)))


def learn(
    texts: csr_matrix, labels: Int64[np.ndarray, " rows"], test: csr_matrix, classes: int, seed: int
) -> Int64[np.ndarray, " tests"]:
    """What a student says of the test rows after EPOCHS on these labels; the seed draws its weights and the order."""
    torch.manual_seed(seed)
    order, targets = np.random.default_rng(seed), torch.from_numpy(labels)
    student = Student(texts.shape[1], classes)
    adam = torch.optim.Adam(student.parameters(), RATE)
    for _ in range(EPOCHS):
        for rows in np.array_split(order.permutation(len(labels)), -(-len(labels) // BATCH)):
            adam.zero_grad()
            torch.nn.functional.cross_entropy(student(texts[rows]), targets[rows]).backward()
            adam.step()
    with torch.no_grad():
        return student(test).argmax(dim=1).numpy()
