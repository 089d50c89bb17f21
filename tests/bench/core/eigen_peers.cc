#include "tests/bench/core/eigen_peers.h"

#include <omp.h>

#include <Eigen/Core>
#include <algorithm>

namespace fisherd::bench {
namespace {

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Map = Eigen::Map<Matrix, Eigen::Aligned64>;
using ConstMap = Eigen::Map<const Matrix, Eigen::Aligned64>;

// Calls work(first, count) for a share of `rows` rows on each thread: Eigen itself runs only
// products on more than one.
template <typename Work>
void Share(int threads, Eigen::Index rows, const Work& work) {
  if (threads == 1) return work(Eigen::Index{0}, rows);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int thread = 0; thread < threads; ++thread) {
    const Eigen::Index first = rows * thread / threads;
    work(first, rows * (thread + 1) / threads - first);
  }
}

// What both ways work on.
struct Step {
  explicit Step(Problem& problem)
      : sizes(problem.sizes),
        inputs(problem.inputs(), sizes.depth(), sizes.inputs),
        squared_inputs(problem.squared_inputs(), sizes.depth(), sizes.inputs),
        squared_grads(problem.squared_grads(), sizes.depth(), sizes.outputs),
        product(problem.product(), sizes.state_rows(), sizes.outputs),
        state(problem.state(), sizes.state_rows(), sizes.outputs) {
    Eigen::setNbThreads(sizes.threads);
  }

  void SquareInputs() {
    Share(sizes.threads, sizes.depth(), [&](Eigen::Index first, Eigen::Index count) {
      squared_inputs.middleRows(first, count) = inputs.middleRows(first, count).cwiseAbs2();
    });
  }

  void SquareGrads(const Problem& problem, int source, bool add) {
    const ConstMap grads(problem.grads(source), sizes.depth(), sizes.outputs);
    Share(sizes.threads, sizes.depth(), [&](Eigen::Index first, Eigen::Index count) {
      if (add) {
        squared_grads.middleRows(first, count) += grads.middleRows(first, count).cwiseAbs2();
      } else {
        squared_grads.middleRows(first, count) = grads.middleRows(first, count).cwiseAbs2();
      }
    });
  }

  // to += factor·squared_inputsᵀ·squared_grads, with the bias row below.
  void AddProduct(float factor, Map& to) {
    to.topRows(sizes.inputs).noalias() += factor * squared_inputs.transpose() * squared_grads;
    if (sizes.bias) to.bottomRows(1).noalias() += factor * squared_grads.colwise().sum();
  }

  const Case& sizes;
  const ConstMap inputs;
  Map squared_inputs;
  Map squared_grads;
  Map product;
  Map state;
};

}  // namespace

void EigenFivePass(Problem& problem) {
  Step step(problem);
  step.SquareInputs();
  for (int source = 0; source < step.sizes.sources; ++source) {
    step.SquareGrads(problem, source, false);
    if (source == 0) step.product.setZero();
    step.AddProduct(1, step.product);
  }
  const float divisor = step.sizes.depth();
  Share(step.sizes.threads, step.product.rows(), [&](Eigen::Index first, Eigen::Index count) {
    step.product.middleRows(first, count) /= divisor;
  });
  Share(step.sizes.threads, step.product.rows(), [&](Eigen::Index first, Eigen::Index count) {
    step.state.middleRows(first, count) =
        static_cast<float>(kDecay) * step.state.middleRows(first, count) +
        static_cast<float>(kWeight) * step.product.middleRows(first, count);
  });
}

void EigenFused(Problem& problem) {
  Step step(problem);
  step.SquareInputs();
  for (int source = 0; source < step.sizes.sources; ++source) {
    step.SquareGrads(problem, source, source > 0);
  }
  Share(step.sizes.threads, step.state.rows(), [&](Eigen::Index first, Eigen::Index count) {
    step.state.middleRows(first, count) *= static_cast<float>(kDecay);
  });
  step.AddProduct(static_cast<float>(kWeight * problem.scale()), step.state);
}

}  // namespace fisherd::bench
