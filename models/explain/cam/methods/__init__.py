"""Methods of class activation maps, a file each: a formula of the activations and gradients of the target layer."""
