// Where a sum meets the moving average.

#ifndef FISHERD_CORE_CUDA_AVERAGE_CUH_
#define FISHERD_CORE_CUDA_AVERAGE_CUH_

namespace fisherd::cuda {

// decay·old + weight·sum. The decay is never rounded to float, because total_weight is not: 0.9999
// rounded would drift from it. So it is the sum of two floats. (In 64 bits the conversions would
// take as long as the state's way through memory.) A decay of 0 drops what was there, whatever it
// is.
template <typename T>
struct Average;

template <>
struct Average<float> {
  Average(double decay, double weight)
      : decay_hi(static_cast<float>(decay)),
        decay_lo(static_cast<float>(decay - static_cast<double>(decay_hi))),
        weight(static_cast<float>(weight)) {}
  __device__ float operator()(float old, float sum) const {
    const float added = __fmul_rn(weight, sum);
    return decay_hi == 0 ? added : __fmaf_rn(decay_hi, old, __fmaf_rn(decay_lo, old, added));
  }
  float decay_hi, decay_lo, weight;
};

template <>
struct Average<double> {
  Average(double decay, double weight) : decay(decay), weight(weight) {}
  __device__ double operator()(double old, double sum) const {
    const double added = __dmul_rn(weight, sum);
    return decay == 0 ? added : __fma_rn(decay, old, added);
  }
  double decay, weight;
};

}  // namespace fisherd::cuda

#endif  // FISHERD_CORE_CUDA_AVERAGE_CUH_
