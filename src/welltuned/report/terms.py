"""What every term of a report means, in a sentence each."""

from welltuned.analysis.optimum import NEAR_OPTIMAL, RIGHT_EDGE

TERMS: tuple[tuple[str, str], ...] = (
    (
        "Cell",
        "One setting of every axis but the learning rate and the seeds. The learning rate is tuned in each.",
    ),
    (
        "Selected learning rate",
        "The one with the lowest mean validation loss among the cell's selection trials. Test plays no part.",
    ),
    (
        "Fresh seeds",
        "Reruns of the selected configuration on seeds that selection never saw. A seed varies the adapter's initial "
        "values, the order of the data and, where subsets are drawn, the subset.",
    ),
    (
        "Validation NLL",
        "Mean negative log-likelihood of the validation split's target tokens, nats per token; lower is better.",
    ),
    (
        "NLL, selection",
        "The same at the selected learning rate, on the seeds that selected it. Too good, since it was chosen.",
    ),
    (
        "Test accuracy",
        "Share of test items whose answer, generated greedily, is graded correct. Only fresh seeds are graded.",
    ),
    (
        "95 % interval",
        "Student's t over the seeds' values. It does not contain the chance of which items the test split holds.",
    ),
    (
        "Item SE",
        "Standard error, over the test items, of the accuracy averaged over seeds. Methods answer the same items, so "
        "that most of it cancels in their difference.",
    ),
    (
        "η*",
        "Estimated optimal learning rate: the vertex of the parabola in log η through the three learning rates around "
        "the best one. Not given where the best is on the edge of the grid.",
    ),
    (
        "Band",
        f"Learning rates whose loss, interpolated, is within {100 * NEAR_OPTIMAL:g} % of the best. ≤ and ≥ say that "
        "it leaves the grid.",
    ),
    (
        "Right edge",
        f"Learning rate above the optimum at which {100 * RIGHT_EDGE:g} % of the gain over the base model is lost "
        "again (in the figure's CSV file).",
    ),
    (
        "Diverged",
        "The loss became infinite or passed the threshold that holds for all methods. Such a trial counts with the "
        "base model's loss and accuracy 0, and is never dropped.",
    ),
    (
        "Edge",
        "The best learning rate is the lowest or highest tried, so that the cell's optimum may lie beyond the grid.",
    ),
    ("Clipped", "Share of optimizer steps whose gradient was clipped, averaged over the cell's trials."),
)
