// Matrix products, the first rung: one thread has one element of y.
//
//                     b  . . n . .
//                        . . | . .        the thread goes down column n of b and along row m of a,
//          a             . . v . .        multiplies and adds, and writes y[m, n]
//          . . . .    y  . . . . .
//        m ------>       . . n . .
//
// The threads of a warp have neighbouring n: they read one element of a together and write 128
// bytes of y at once.  Every element of a is read n times, every one of b m times, all from far
// away: that is what the next rungs (linear_tiled.cu, linear_registers.cu) save.
#include "linear.cuh"

KERNEL(product_naive)(T* y, const T* a, const T* b, const T* bias, Product p) {
    GRID_LOOP(i, p.matrices * p.m * p.n) {
        i64 n = i % p.n, row = i / p.n, m = row % p.m, begin[2];
        place<2>(p.walk, row / p.m, begin);
        const T* row_a = a + begin[0] + m * p.a_m;
        const T* column_b = b + begin[1] + n * p.b_n;
        T sum = 0;
        for (i64 k = 0; k < p.k; k++) sum += row_a[k * p.a_k] * column_b[k * p.b_k];
        y[i] = activated(bias ? sum + bias[n] : sum, p.activation);
    }
}

// The end of a product whose k was cut: y = act(bias + the sum of its parts), in a fixed order.
//
//      parts  [ y of k = 0 ... | y of the next k ... | ... ]     one thread has one element of y
KERNEL(product_join)(T* y, const T* parts, const T* bias, Product p) {
    i64 size = p.matrices * p.m * p.n;
    GRID_LOOP(i, size) {
        T sum = 0;
        for (i64 part = 0; part < p.splits; part++) sum += parts[part * size + i];
        y[i] = activated(bias ? sum + bias[i % p.n] : sum, p.activation);
    }
}
