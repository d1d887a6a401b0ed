// Gates, and the first and the last product of rows, see passes.c.
// gate = b - 2 a b, of a, b = sigmoid of the two halves of bias + pre; the sigmoids take the place of pre.
void OF(gate)(TYPE *restrict pre, const TYPE *restrict bias, TYPE *restrict gate, long rows, long width, long threads) {
    FOR_ROWS(rows) {
        TYPE *restrict base = pre + row * 2 * width, *restrict out = gate + row * width;
        FOR_CHANNELS(width) {
            const float a = sigmoid(LOAD(bias[c]) + LOAD(base[c]));
            const float b = sigmoid(LOAD(bias[c + width]) + LOAD(base[c + width]));
            base[c] = STORE(a);
            base[c + width] = STORE(b);
            out[c] = STORE(b - 2 * a * b);
        }
    }
}

// pre = gradient of what a, b = `sigmoids` are of, from that of u = b - 2 a b; sums += its columns'.
void OF(gate_gradients)(const TYPE *restrict grad, const TYPE *restrict u, const TYPE *restrict sigmoids,
                        TYPE *restrict pre, float *restrict sums, long rows, long width, long threads) {
    _Pragma("omp parallel for schedule(static) num_threads(threads) reduction(+ : sums[:2 * width])")
    for (long row = 0; row < rows; row++) {
        const TYPE *restrict own = grad + row * width, *restrict v = u + row * width;
        const TYPE *restrict ab = sigmoids + row * 2 * width;
        TYPE *restrict to = pre + row * 2 * width;
        FOR_CHANNELS(width) {
            const float g = LOAD(own[c]), b = LOAD(ab[c + width]);
            const float product = g * LOAD(v[c]), inner = product - g * b;
            const float grad_a = inner - inner * LOAD(ab[c]), grad_b = product - product * b;
            to[c] = STORE(grad_a);
            to[c + width] = STORE(grad_b);
            sums[c] += grad_a;
            sums[c + width] += grad_b;
        }
    }
}

// out = relu(bias + W' x): x are `size` values, of rows that begin `stride` values apart, W is (size, width).
void OF(front)(const float *restrict x, const float *restrict weight, const float *restrict bias, TYPE *restrict out,
               long rows, long stride, long size, long width, long threads) {
    FOR_ROWS(rows) {
        const float *restrict own = x + row * stride;
        float sums[CHANNELS];
        for (long begin = 0; begin < width; begin += CHANNELS) {
            const long count = width - begin < CHANNELS ? width - begin : CHANNELS;
            memcpy(sums, bias + begin, count * sizeof(float));
            for (long k = 0; k < size; k++) {
                const float value = own[k], *restrict w = weight + k * width + begin;
                FOR_CHANNELS(count) sums[c] += value * w[c];
            }
            TYPE *restrict to = out + row * width + begin;
            FOR_CHANNELS(count) to[c] = STORE(sums[c] < 0 ? 0 : sums[c]);
        }
    }
}

// out (rows, columns) = bias + x W', W is (columns, width).
void OF(end)(const TYPE *restrict x, const float *restrict weight, const float *restrict bias, float *restrict out,
             long rows, long width, long columns, long threads) {
    FOR_ROWS(rows) {
        const TYPE *restrict own = x + row * width;
        for (long k = 0; k < columns; k++) {
            const float *restrict w = weight + k * width;
            float sum = 0;
            _Pragma("omp simd reduction(+ : sum)") for (long c = 0; c < width; c++) sum += LOAD(own[c]) * w[c];
            out[row * columns + k] = bias[k] + sum;
        }
    }
}

#undef KIND
#undef TYPE
