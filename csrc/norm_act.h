// y = act(w * (x - mean) / sqrt(var + eps) + b), a normalisation with the activation behind it;
// gan_engine/ops/norm_act.py is the definition.
//
// Dense memory [samples, outer, channels, inner]; there is a mean and a variance for each sample and channel, taken
// over outer and inner, and only one of samples and inner is more than 1. w and b repeat after `features` channels.
#pragma once

#include "common.h"

namespace gan_engine {

struct NormActShape {
    std::int64_t samples, outer, channels, inner, features;
};

// Pointers to S are to float, or to double for float64. act(z) = z > 0 ? z : slope * z.
struct NormStatsParams {
    const void* x;
    void* mean;  // S [samples, channels]
    void* var;   // S [samples, channels], divided by outer * inner
    NormActShape shape;
    DType dtype;
};

struct NormActParams {
    const void* x;
    const void* mean;
    const void* var;
    const void* w;  // S [features]
    const void* b;
    void* y;
    NormActShape shape;
    DType dtype;
    double slope, eps;
};

// dw and db: S [samples, channels], to be summed over what repeats. With constant_stats mean and var do not depend on
// x.
struct NormActGradParams {
    const void* dy;
    const void* x;
    const void* mean;
    const void* var;
    const void* w;
    const void* b;
    void* dx;
    void* dw;
    void* db;
    NormActShape shape;
    DType dtype;
    double slope, eps;
    bool constant_stats;
};

}  // namespace gan_engine
